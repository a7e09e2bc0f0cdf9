"""Local training: some epochs over a site's bank, which changes the shared weights and the bank's own tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from client.bank import Bank
from client.exemplar_optimiser import step_rows
from common.model import Munkey
from common.neighbours import NONE
from common.pathways import PathwayDropout
from common.settings import Settings


@dataclass(frozen=True)
class Trained:
    """What came of local training.

    Attributes
    ----------
    loss : float
        Mean training loss of the last epoch, without the proximal term.
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
    proximal_mu: float = 0.0,
    after_step: Callable[[int, int], None] | None = None,
) -> Trained:
    """Train a model on a bank; the model's weights and the bank's tokens are updated in place.

    Parameters
    ----------
    model : Munkey
        Starts from the federation's shared weights.
    bank : Bank
        The site's entries.
    settings : Settings
        Epochs, rates, members, dropout.
    round_number : int
        From 1; the learning rates fall along a half cosine over all rounds.
    generator : torch.Generator
        Where all random choices come from.
    proximal_mu : float
        Weight of FedProx's term, mu / 2 * ||w - w_start||^2 (Li et al. 2020, eq. 2).
    after_step : callable, optional
        Called after each step with steps done and steps in all; may raise to stop training.

    Returns
    -------
    Trained
        Loss and number of examples.
    """
    if not len(bank):
        return Trained(math.nan, 0)
    fraction = 0.5 * (1 + math.cos(math.pi * (round_number - 1) / settings.num_rounds))
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate * fraction, weight_decay=settings.weight_decay
    )
    start = [weight.detach().clone() for weight in model.parameters()] if proximal_mu else []
    batches = math.ceil(len(bank) / settings.batch_size)
    done, loss_sum = 0, 0.0
    model.train()
    for _ in range(settings.local_epochs):
        loss_sum = 0.0
        for rows in torch.randperm(len(bank), generator=generator).split(settings.batch_size):
            step = _Step.draw(bank, rows, settings, generator)
            loss, gradients = step.run(model, bank, settings)
            if proximal_mu:
                _add_proximal_gradient(model, start, proximal_mu)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            if settings.exemplar_learning_rate:
                used = step.present.flatten()
                learning_rate = settings.exemplar_learning_rate * fraction
                step_rows(bank.tokens, step.members.flatten()[used], gradients.flatten(0, 1)[used], learning_rate)
            loss_sum += loss * len(rows)
            done += 1
            if after_step is not None:
                after_step(done, batches * settings.local_epochs)
    model.eval()
    return Trained(loss_sum / len(bank), len(bank))


@dataclass(frozen=True)
class _Step:
    """One training step's B records and, for each, M members: bank positions, and which of them are there and read."""

    rows: Tensor
    members: Tensor
    present: Tensor
    null_memory: Tensor
    null_image: Tensor

    @classmethod
    def draw(cls, bank: Bank, rows: Tensor, settings: Settings, generator: torch.Generator) -> _Step:
        """Draw M different entries of each record's K nearest, its own instead of the first in some, and dropout."""
        nearest = bank.lists.indices[rows, : settings.neighbours]
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


def _add_proximal_gradient(model: Munkey, start: list[Tensor], mu: float) -> None:
    for weight, before in zip(model.parameters(), start, strict=True):
        if weight.grad is not None:
            weight.grad.add_(weight.detach() - before, alpha=mu)
