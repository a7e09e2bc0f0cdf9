"""Local training: steps over a site's bank along the gradient route of the federation's guarantee."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmunkey.client.learning.bank import Bank
from fedmunkey.client.learning.exemplar_optimiser import step_rows
from fedmunkey.client.learning.exemplar_tokens import own_tokens
from fedmunkey.client.learning.noisy_step import noisy_gradients, noisy_steps_of_round
from fedmunkey.client.learning.secret_noise import SecretNoise
from fedmunkey.common.model.model import Munkey
from fedmunkey.common.model.neighbours import NONE
from fedmunkey.common.model.pathways import DroppedPathways
from fedmunkey.common.model.recipe import Recipe

_TOGETHER = 512


@dataclass(frozen=True)
class Trained:
    """What came of local training: how many entries were trained on, and a loss, without the proximal term.

    It is the mean of the last epoch, or of the last sample where gradients are clipped.
    """

    loss: float
    examples: int


def train(
    model: Munkey,
    bank: Bank,
    recipe: Recipe,
    *,
    round_number: int,
    generator: torch.Generator,
    secret: SecretNoise | None = None,
    proximal_mu: float = 0.0,
    after_step: Callable[[int, int], None] | None = None,
) -> Trained:
    """Train a model on a bank along the recipe's route; the model's weights and the bank's tokens change in place.

    Raises `ValueError` under `certified` without a `secret`, and under `exact`, where nothing is descended to.

    Parameters
    ----------
    model : Munkey
        Starts from the federation's shared weights.
    bank : Bank
        A site's entries.
    round_number : int
        From 1; the learning rates fall along a half cosine over all rounds.
    generator : torch.Generator
        Where random choices come from that need not be secret.
    secret : SecretNoise, optional
        Where samples and noise of `certified` training come from.
    proximal_mu : float
        Weight of FedProx's term, mu / 2 * ||w - w_start||^2 (Li et al. 2020, eq. 2).
    after_step : callable, optional
        Called after each step with steps done and steps in all; may raise to stop training.
    """
    route = recipe.route
    if route.solved:
        raise ValueError(f"{route.name} is solved for, not trained")
    if not len(bank):
        return Trained(math.nan, 0)
    if route.noisy and secret is None:
        raise ValueError(f"{route.name} training needs secret noise")
    if route.reads_memory and not route.joint_tokens:
        # Nothing but these entries is read in training, so their tokens may be computed side by side.
        bank.tokens.copy_(own_tokens(model, bank.inputs, together=_TOGETHER))
    fraction = recipe.fraction_of_rates(round_number)
    trained = {name: weight for name, weight in model.named_parameters() if route.trains(name)}
    learner: _Plain | _Clipped
    if secret is not None and route.noisy:
        learner = _Clipped(model, bank, recipe, trained, fraction, secret)
    else:
        learner = _Plain(model, bank, recipe, trained, fraction, generator)
    start = {name: weight.detach().clone() for name, weight in trained.items()} if proximal_mu else {}
    steps = recipe.steps_of_round(len(bank))
    model.train()
    for done in range(1, steps + 1):
        learner.find_gradients()
        for name, before in start.items():
            _add_proximal_gradient(trained[name], before, proximal_mu)
        learner.move()
        if after_step is not None:
            after_step(done, steps)
    model.eval()
    return Trained(learner.loss, len(bank))


class _Plain:
    """Mini-batches with AdamW; exemplar tokens move along where they are trained jointly."""

    def __init__(
        self,
        model: Munkey,
        bank: Bank,
        recipe: Recipe,
        trained: dict[str, nn.Parameter],
        fraction: float,
        generator: torch.Generator,
    ) -> None:
        self._model, self._bank, self._recipe, self._generator = model, bank, recipe, generator
        self._optimiser = torch.optim.AdamW(
            trained.values(),
            lr=recipe.learning_rate * fraction,
            weight_decay=recipe.settings.weight_decay,
            fused=True,
        )
        self._token_rate = recipe.settings.exemplar_learning_rate * fraction if recipe.route.joint_tokens else 0.0
        self._queue: list[Tensor] = []
        self._loss_sum, self._seen = 0.0, 0
        self._step: _Step | None = None
        self._gradients = torch.empty(0)

    @property
    def loss(self) -> float:
        """Mean loss over the records seen in the last epoch."""
        return self._loss_sum / max(self._seen, 1)

    def find_gradients(self) -> None:
        """Draw the next mini-batch and run it; an epoch begins with a fresh order."""
        settings = self._recipe.settings
        if not self._queue:
            order = torch.randperm(len(self._bank), generator=self._generator)
            self._queue = list(order.split(settings.batch_size))
            self._loss_sum, self._seen = 0.0, 0
        rows = self._queue.pop(0)
        self._optimiser.zero_grad(set_to_none=True)
        self._step = _Step.draw(self._bank, rows, self._recipe, self._generator)
        loss, self._gradients = self._step.run(self._model, self._bank, settings.label_smoothing)
        self._loss_sum += loss * len(rows)
        self._seen += len(rows)

    def move(self) -> None:
        """Step the shared weights and, where they learn, the tokens that the batch has read."""
        self._optimiser.step()
        if self._token_rate and self._step is not None:
            used = self._step.present.flatten()
            rows, gradients = self._step.members.flatten()[used], self._gradients.flatten(0, 1)[used]
            step_rows(self._bank.tokens, rows, gradients, self._token_rate)


class _Clipped:
    """The mean of clipped gradients over a Poisson sample, with noise, and a plain step along it."""

    def __init__(
        self,
        model: Munkey,
        bank: Bank,
        recipe: Recipe,
        trained: dict[str, nn.Parameter],
        fraction: float,
        secret: SecretNoise,
    ) -> None:
        self._model, self._settings, self._trained, self._secret = model, recipe.settings, trained, secret
        device = model.label_embedding.device
        self._inputs, self._labels = bank.inputs.to(device), bank.labels.to(device)
        self._spending = noisy_steps_of_round(recipe)
        self._rate = recipe.learning_rate * fraction
        self.loss = math.nan

    def find_gradients(self) -> None:
        """Draw a sample and noise; the loss is then the sample's."""
        weights = {name: weight.detach() for name, weight in self._trained.items()}
        gradients, self.loss = noisy_gradients(
            self._model,
            weights,
            self._inputs,
            self._labels,
            spending=self._spending,
            settings=self._settings,
            secret=self._secret,
        )
        for name, gradient in gradients.items():
            self._trained[name].grad = gradient

    def move(self) -> None:
        """Step the shared weights; weight decay would only add to what the noise does."""
        with torch.no_grad():
            for weight in self._trained.values():
                weight.sub_(cast(Tensor, weight.grad), alpha=self._rate)
                weight.grad = None


@dataclass(frozen=True)
class _Step:
    """One training step's B records and, for each, M members: bank positions, and which of them are there and read."""

    rows: Tensor
    members: Tensor
    present: Tensor
    null_memory: Tensor
    null_image: Tensor

    @classmethod
    def draw(cls, bank: Bank, rows: Tensor, recipe: Recipe, generator: torch.Generator) -> _Step:
        """Draw M different entries of each record's K nearest, its own instead of the first in some, and dropout.

        Where no memory is read, each record is alone with its image.
        """
        if not recipe.route.reads_memory:
            nothing = torch.zeros(len(rows), 1, dtype=torch.bool)
            return cls(rows, rows[:, None], nothing, ~nothing, nothing[:, 0])
        nearest = bank.lists.indices[rows, : recipe.neighbours]
        members = min(recipe.settings.training_members, nearest.shape[1])
        order = torch.rand(nearest.shape, generator=generator).masked_fill_(nearest == NONE, 2.0).argsort(1)
        chosen = nearest.gather(1, order[:, :members])
        dropped = DroppedPathways.draw(recipe.settings, len(rows), members, generator)
        chosen[:, 0] = torch.where(dropped.own, rows, chosen[:, 0])
        present = (chosen != NONE) & ~dropped.null_memory
        null_image = dropped.null_image & present.any(1)
        return cls(rows, chosen.clamp_min(0), present, ~present, null_image)

    def run(self, model: Munkey, bank: Bank, label_smoothing: float) -> tuple[float, Tensor]:
        """Leave gradients of the mean member loss in the model; return that loss and (B, M, E) offset gradients."""
        device = model.label_embedding.device
        offsets = bank.tokens.offsets[self.members].to(device).requires_grad_()
        labels = bank.labels[self.members].to(device)
        logits = model(
            bank.inputs[self.rows].to(device),
            model.exemplars(labels, offsets),
            null_memory=self.null_memory.to(device),
            null_image=self.null_image.to(device),
        )
        targets = bank.labels[self.rows].to(device)[:, None].expand(-1, logits.shape[1])
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), label_smoothing=label_smoothing)
        loss.backward()
        assert offsets.grad is not None  # noqa: S101 (tells the type checker what backward() does)
        return loss.item(), offsets.grad.cpu()


def _add_proximal_gradient(weight: nn.Parameter, before: Tensor, mu: float) -> None:
    if weight.grad is not None:
        weight.grad.add_(weight.detach() - before, alpha=mu)
