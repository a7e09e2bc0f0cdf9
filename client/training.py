"""Local training: steps over a site's bank along the gradient route of the federation's guarantee."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmunkey.client.bank import Bank
from fedmunkey.client.exemplar_optimiser import step_rows
from fedmunkey.client.exemplar_tokens import own_tokens
from fedmunkey.client.gradient_routes import GradientRoute
from fedmunkey.client.noisy_step import (
    FEW_STEPS,
    Draws,
    SeededDraws,
    empirical_steps_of_round,
    noisy_gradients,
    spending_of_round,
)
from fedmunkey.client.secret_noise import SecretNoise
from fedmunkey.common.errors import ConsentMissing
from fedmunkey.common.model import Munkey
from fedmunkey.common.neighbours import NONE
from fedmunkey.common.pathways import PathwayDropout
from fedmunkey.common.settings import ImagePath, Settings

_TOGETHER = 512


@dataclass(frozen=True)
class Trained:
    """What came of local training.

    Attributes
    ----------
    loss : float
        Mean training loss of the last epoch, or of the last sample where gradients are clipped; without the proximal
        term.
    examples : int
        Entries trained on.
    """

    loss: float
    examples: int


def train(
    model: Munkey,
    bank: Bank,
    settings: Settings,
    *,
    round_number: int,
    generator: torch.Generator,
    secret: SecretNoise | None = None,
    proximal_mu: float = 0.0,
    after_step: Callable[[int, int], None] | None = None,
) -> Trained:
    """Train a model on a bank; the model's weights and the bank's tokens are updated in place.

    Parameters
    ----------
    model : Munkey
        Starts from the federation's shared weights.
    bank : Bank
        The entries that may train shared weights under the federation's guarantee, with neighbours among them alone.
    settings : Settings
        Guarantee, epochs, rates, members, dropout.
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

    Returns
    -------
    Trained
        Loss and number of examples.

    Raises
    ------
    ConsentMissing
        Under `exact`, if the bank holds an entry whose consent may be withdrawn; nothing is trained.
    ValueError
        Under `certified`, if there is no `secret`.
    """
    route = GradientRoute.of(settings, model.shape)
    _check_consent(bank, route)
    if not len(bank):
        return Trained(math.nan, 0)
    if not (route.joint_tokens or route.linear_only or route.noisy):
        # Nothing but these entries is read in training, so their tokens may be computed side by side.
        bank.tokens.copy_(own_tokens(model, bank.inputs, together=_TOGETHER))
    fraction = 0.5 * (1 + math.cos(math.pi * (round_number - 1) / settings.num_rounds))
    trained = {name: weight for name, weight in model.named_parameters() if route.trains(name)}
    learner: _Learner
    if route.clipped:
        learner = _Clipped(model, bank, settings, trained, fraction, _draws(route, generator, secret), route)
    else:
        learner = _Plain(model, bank, settings, trained, fraction, generator, route)
    start = {name: weight.detach().clone() for name, weight in trained.items()} if proximal_mu else {}
    model.train()
    for done in range(1, learner.steps + 1):
        learner.find_gradients()
        for name, before in start.items():
            _add_proximal_gradient(trained[name], before, proximal_mu)
        learner.move()
        if after_step is not None:
            after_step(done, learner.steps)
    model.eval()
    return Trained(learner.loss, len(bank))


def _check_consent(bank: Bank, route: GradientRoute) -> None:
    revocable = int((~bank.permanent).sum())
    if route.permanent_only and revocable:
        raise ConsentMissing(
            f"{revocable} of {len(bank)} records may have their consent withdrawn, and under guarantee = exact only "
            "permanent records train shared weights; leave them out, or choose certified or empirical"
        )


def _draws(route: GradientRoute, generator: torch.Generator, secret: SecretNoise | None) -> Draws:
    """Choose where samples and noise come from: from a secret wherever a bound is claimed."""
    if not route.noisy:
        return SeededDraws(generator)
    if secret is None:
        raise ValueError("certified training needs secret noise")
    return secret


class _Learner(Protocol):
    """Finds gradients of the shared weights, and moves what is trained."""

    steps: int

    @property
    def loss(self) -> float:
        """Mean loss of the latest examples."""

    def find_gradients(self) -> None:
        """Leave gradients in the shared weights."""

    def move(self) -> None:
        """Take one step."""


class _Plain:
    """Mini-batches with AdamW; exemplar tokens move along where they are trained jointly."""

    def __init__(
        self,
        model: Munkey,
        bank: Bank,
        settings: Settings,
        trained: dict[str, nn.Parameter],
        fraction: float,
        generator: torch.Generator,
        route: GradientRoute,
    ) -> None:
        self._model, self._bank, self._settings, self._generator = model, bank, settings, generator
        self._optimiser = torch.optim.AdamW(
            trained.values(),
            lr=(settings.linear_learning_rate if route.linear_only else settings.learning_rate) * fraction,
            weight_decay=settings.weight_decay,
            # One kernel for all weights; for two it brings nothing.
            fused=not route.linear_only,
        )
        self._token_rate = settings.exemplar_learning_rate * fraction if route.joint_tokens else 0.0
        self._linear_only = route.linear_only
        few = model.shape.image_path is ImagePath.FROZEN
        batches = math.ceil(len(bank) / settings.batch_size)
        self.steps = settings.local_steps or (FEW_STEPS if few else batches * settings.local_epochs)
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
        if not self._queue:
            order = torch.randperm(len(self._bank), generator=self._generator)
            self._queue = list(order.split(self._settings.batch_size))
            self._loss_sum, self._seen = 0.0, 0
        rows = self._queue.pop(0)
        self._optimiser.zero_grad(set_to_none=True)
        self._step = _Step.draw(self._bank, rows, self._settings, self._generator, memory=not self._linear_only)
        loss, self._gradients = self._step.run(self._model, self._bank, self._settings)
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
    """The mean of clipped gradients over a Poisson sample, with noise under `certified`, and a plain step along it."""

    def __init__(
        self,
        model: Munkey,
        bank: Bank,
        settings: Settings,
        trained: dict[str, nn.Parameter],
        fraction: float,
        draws: Draws,
        route: GradientRoute,
    ) -> None:
        self._model, self._settings, self._trained, self._draws = model, settings, trained, draws
        device = model.label_embedding.device
        self._inputs, self._labels = bank.inputs.to(device), bank.labels.to(device)
        self._spending = spending_of_round(settings) if route.noisy else empirical_steps_of_round(settings)
        self._rate = settings.clipped_learning_rate * fraction
        self.steps = self._spending.steps
        self._loss = math.nan

    @property
    def loss(self) -> float:
        """Mean loss of the latest sample."""
        return self._loss

    def find_gradients(self) -> None:
        """Draw a sample and noise."""
        weights = {name: weight.detach() for name, weight in self._trained.items()}
        gradients, self._loss = noisy_gradients(
            self._model,
            weights,
            self._inputs,
            self._labels,
            spending=self._spending,
            settings=self._settings,
            draws=self._draws,
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
    def draw(
        cls, bank: Bank, rows: Tensor, settings: Settings, generator: torch.Generator, *, memory: bool = True
    ) -> _Step:
        """Draw M different entries of each record's K nearest, its own instead of the first in some, and dropout.

        Without `memory` each record is alone with its image.
        """
        if not memory:
            nothing = torch.zeros(len(rows), 1, dtype=torch.bool)
            return cls(rows, rows[:, None], nothing, ~nothing, nothing[:, 0])
        nearest = bank.lists.indices[rows, : settings.retrieved]
        members = min(settings.training_members, nearest.shape[1])
        order = torch.rand(nearest.shape, generator=generator).masked_fill_(nearest == NONE, 2.0).argsort(1)
        chosen = nearest.gather(1, order[:, :members])
        dropped = PathwayDropout.from_settings(settings).sample(len(rows), members, generator)
        chosen[:, 0] = torch.where(dropped.own, rows, chosen[:, 0])
        present = (chosen != NONE) & ~dropped.null_memory
        null_image = dropped.null_image & present.any(1)
        return cls(rows, chosen.clamp_min(0), present, ~present, null_image)

    def run(self, model: Munkey, bank: Bank, settings: Settings) -> tuple[float, Tensor]:
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
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), label_smoothing=settings.label_smoothing)
        loss.backward()
        assert offsets.grad is not None  # noqa: S101 (tells the type checker what backward() does)
        return loss.item(), offsets.grad.cpu()


def _add_proximal_gradient(weight: nn.Parameter, before: Tensor, mu: float) -> None:
    if weight.grad is not None:
        weight.grad.add_(weight.detach() - before, alpha=mu)
