"""Federated averaging from trained weights with a loss of a method's own: what unlearning after training has in common.

Optimiser, weight decay, batches and epochs are those of training, and the budget of rounds is everyone's, so methods
differ in their losses only.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.randomness import generator
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.federated_loop import Averaged, LocalTraining, average_rounds
from fedmunkey.simulations.federation.plain_models import Examples, Loss, PlainModel, descend, falling
from fedmunkey.simulations.unlearning.method import Budget, Forgotten, weights_bytes
from fedmunkey.simulations.unlearning.plain_federation import PlainFederation

RATE = 0.5
"""Learning rate for one of training, in the first round; it falls over the budget's rounds as training's does.

Of 0.1, 0.5 and 1, tried on BreastMNIST with one seed: 0.1 leaves almost everything remembered, 1 costs retained
accuracy.
"""


@dataclass(frozen=True)
class Share:
    """What one hospital has at hand; either part may be empty."""

    retained: Examples
    forgotten: Examples

    def __len__(self) -> int:
        return len(self.retained) + len(self.forgotten)

    def without_forgotten(self) -> Share:
        """Return the share of a hospital that has already deleted what is forgotten."""
        return Share(self.retained, Examples(self.forgotten.inputs[:0], self.forgotten.labels[:0]))


@dataclass(frozen=True)
class Epoch:
    """One of the local epochs of all rounds, from 1."""

    number: int
    total: int


Steps = Callable[[Share, Epoch, torch.Generator], Iterator[Loss]]
"""Yields the loss of each step of a hospital's epoch, none if it has nothing to do in it."""


def shares_of(case: Case, shape: ModelShape | None = None) -> dict[str, Share]:
    """Return each hospital's retained and forgotten training records, as a model of a shape reads them.

    Without one it is the federation's.
    """
    shape, forgotten = shape or case.shape, case.forget_records()
    return {
        name: Share(Examples.of(some, shape), Examples.of(forgotten[name], shape))
        for name, some in case.retained().items()
    }


def unlearn(
    trained: PlainFederation,
    shares: Mapping[str, Share],
    settings: Settings,
    budget: Budget,
    name: str,
    steps: Steps,
    *,
    rate: float | None = None,
) -> Forgotten:
    """Train on from trained weights in rounds of local epochs and averaging.

    A hospital that takes no step in a round has no part in it. The others count with their number of records at hand.
    The trained federation stays as it is. `name` is the method's, whose random choices are its own, and `rate` its
    learning rate for one of training.
    """
    messages = 0

    def count(averaged: Averaged[PlainModel]) -> None:
        nonlocal messages
        messages += 2 * sum(examples > 0 for examples in averaged.examples)

    settings = settings.replace(learning_rate=settings.learning_rate * (RATE if rate is None else rate))
    sites = [_site(site, share, settings, budget, name, steps) for site, share in shares.items()]
    model = average_rounds(copy.deepcopy(trained.model), sites, budget.rounds, after_round=count)
    left = frozenset(site for site, share in shares.items() if len(share.retained))
    return Forgotten(PlainFederation(model, left), messages * weights_bytes(model))


def _site(
    site: str, share: Share, settings: Settings, budget: Budget, name: str, steps: Steps
) -> LocalTraining[PlainModel]:
    epochs = settings.local_epochs

    def train_locally(model: PlainModel, number: int) -> int:
        draws = generator(settings.seed, name, site, number)
        losses = (
            loss
            for epoch in range((number - 1) * epochs + 1, number * epochs + 1)
            for loss in steps(share, Epoch(epoch, budget.rounds * epochs), draws)
        )
        stepped = descend(model, losses, settings.learning_rate * falling(number, budget.rounds), settings)
        return len(share) if stepped else 0

    return train_locally
