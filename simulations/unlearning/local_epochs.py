"""Federated averaging from trained weights with a loss of a method's own: what unlearning after training has in common.

Optimiser, weight decay, batches and epochs are those of training, and the budget of rounds is everyone's, so methods
differ in their losses only.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fedmunkey.common.randomness import generator
from fedmunkey.common.settings import Settings
from fedmunkey.simulations.case import Case
from fedmunkey.simulations.federated_loop import Averaged, LocalTraining, average_rounds
from fedmunkey.simulations.hospitals import Encoded
from fedmunkey.simulations.plain_vit import PlainViT
from fedmunkey.simulations.unlearning.method import Budget, Forgotten
from fedmunkey.simulations.unlearning.plain_vit import PlainFederation, weights_bytes

RATE = 0.5
"""Learning rate for one of training, in the first round; it falls over the budget's rounds as training's does.

Of 0.1, 0.5 and 1, tried on BreastMNIST with one seed: 0.1 leaves almost everything remembered, 1 costs retained
accuracy.
"""

Loss = Callable[[PlainViT], Tensor]
"""What one step lowers."""


@dataclass(frozen=True)
class Records:
    """Some records as a model reads them.

    Attributes
    ----------
    inputs : Tensor
        (n, ...) as `Encoded.inputs` has them.
    labels : Tensor
        (n,) class indices, a canary's as it came.
    """

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def joined(self, others: Records) -> Records:
        """Return these records, then others."""
        return Records(torch.cat([self.inputs, others.inputs]), torch.cat([self.labels, others.labels]))

    def parts(self, size: int) -> Iterator[Records]:
        """Yield all records once, in order, `size` at a time; nothing if there are none."""
        for start in range(0, len(self), size):
            yield Records(self.inputs[start : start + size], self.labels[start : start + size])

    def batches(self, size: int, draws: torch.Generator) -> Iterator[Records]:
        """Yield all records once, in a drawn order, `size` at a time; nothing if there are none."""
        rows = torch.randperm(len(self), generator=draws)
        yield from Records(self.inputs[rows], self.labels[rows]).parts(size)


@dataclass(frozen=True)
class Share:
    """What one hospital has at hand; either part may be empty."""

    retained: Records
    forgotten: Records

    def __len__(self) -> int:
        return len(self.retained) + len(self.forgotten)

    def without_forgotten(self) -> Share:
        """Return the share of a hospital that has already deleted what is forgotten."""
        return Share(self.retained, Records(self.forgotten.inputs[:0], self.forgotten.labels[:0]))


@dataclass(frozen=True)
class Epoch:
    """One of the local epochs of all rounds, from 1."""

    number: int
    total: int


Steps = Callable[[Share, Epoch, torch.Generator], Iterator[Loss]]
"""Yields the loss of each step of a hospital's epoch, none if it has nothing to do in it."""


def shares_of(case: Case) -> dict[str, Share]:
    """Return each hospital's retained and forgotten training records."""

    def read(some: Encoded) -> Records:
        return Records(some.inputs(case.shape), torch.from_numpy(some.records.labels))

    forgotten = case.forget_records()
    return {name: Share(read(some), read(forgotten[name])) for name, some in case.retained().items()}


def unlearn(
    trained: PlainFederation, shares: Mapping[str, Share], settings: Settings, budget: Budget, name: str, steps: Steps
) -> Forgotten:
    """Train on from trained weights in rounds of local epochs and averaging.

    A hospital that takes no step in a round has no part in it. The others count with their number of records at hand.

    Parameters
    ----------
    trained : PlainFederation
        Where to start; it stays as it is.
    shares : mapping
        What each hospital has at hand, by name.
    settings : Settings
        Optimiser, batches, local epochs and seed.
    budget : Budget
        Rounds.
    name : str
        The method's name; its random choices are its own.
    steps : callable
        The method's losses.
    """
    messages = 0

    def count(averaged: Averaged[PlainViT]) -> None:
        nonlocal messages
        messages += 2 * sum(examples > 0 for examples in averaged.examples)

    sites = [_site(site, share, settings, budget, name, steps) for site, share in shares.items()]
    model = average_rounds(copy.deepcopy(trained.model), sites, budget.rounds, after_round=count)
    left = frozenset(site for site, share in shares.items() if len(share.retained))
    return Forgotten(PlainFederation(model, left), messages * weights_bytes(model))


def _site(
    site: str, share: Share, settings: Settings, budget: Budget, name: str, steps: Steps
) -> LocalTraining[PlainViT]:
    epochs = settings.local_epochs

    def train_locally(model: PlainViT, number: int) -> int:
        draws = generator(settings.seed, name, site, number)
        falling = 0.5 * (1 + math.cos(math.pi * (number - 1) / budget.rounds))
        optimiser = torch.optim.AdamW(
            model.parameters(),
            lr=settings.learning_rate * RATE * falling,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        stepped = False
        model.train()
        for epoch in range((number - 1) * epochs + 1, number * epochs + 1):
            for loss in steps(share, Epoch(epoch, budget.rounds * epochs), draws):
                optimiser.zero_grad(set_to_none=True)
                loss(model).backward()
                optimiser.step()
                stepped = True
        model.eval()
        return len(share) if stepped else 0

    return train_locally


def task_loss(model: PlainViT, records: Records, settings: Settings) -> Tensor:
    """Return the loss that training lowers, the mean over some records."""
    return F.cross_entropy(model(records.inputs), records.labels, label_smoothing=settings.label_smoothing)
