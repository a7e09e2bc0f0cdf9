"""What every way to forget has in common.

A *family* is an architecture with its way of training; it learns a federation and, given only the retained records,
its own oracle. A *method* takes a trained federation of its family and makes it forget.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar, runtime_checkable

import torch

from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.common.settings.settings_text import ConfigValue
from fedmunkey.simulations.federation.answers import Answers
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Encoded

Trained = TypeVar("Trained", bound=Answers)

Choices = Sequence[Mapping[str, ConfigValue]]
"""What a search on validation data may try, in its order, each as what differs from the first, which is empty."""

SiteRecords = Mapping[str, Encoded]
"""Each hospital's records, by name."""

AfterRound = Callable[[int, Answers], None]
"""Called after each round, from 1, with the federation as it is then."""


class Family(ABC, Generic[Trained]):
    """An architecture, by the name that users write, and how a federation of it learns.

    `choices` are settings that a search may try instead of the federation's. A family `forgets_by_design` whose one way
    to forget is decided by how it learns.
    """

    name: str
    choices: Choices = ({},)
    forgets_by_design = False

    @abstractmethod
    def train(
        self, records: SiteRecords, settings: Settings, shape: ModelShape, *, after_round: AfterRound | None = None
    ) -> Trained:
        """Train a federation on its hospitals' training records, by name; one without any does not take part.

        `after_round` is called after each round of averaging.
        """


@dataclass(frozen=True)
class Budget:
    """Rounds of local training and averaging for a method that trains again, the same for all but retraining itself."""

    rounds: int


@dataclass(frozen=True)
class Forgotten:
    """The federation afterwards, and the bytes, of weights or anything as large, that hospitals sent and were sent."""

    answers: Answers
    bytes_sent: int


class Method(ABC, Generic[Trained]):
    """A way to forget.

    Attributes
    ----------
    choices : sequence of mapping
        Numbers of its own that a search may try, attributes of an instance; without any the method has its paper's.
    paper : str
        Authors, year and arXiv number or venue of where it comes from.
    needs_data : bool
        Whether hospitals must have their retained or forgotten images at hand again.
    retrains : bool
        Whether it trains from first weights, all of the model or parts of it.
    """

    name: str
    title: str
    paper: str
    family: Family[Trained]
    needs_data: bool
    retrains: bool
    choices: Choices = ({},)

    def chosen(self, values: Mapping[str, ConfigValue]) -> Self:
        """Return the method with some of its numbers changed; raises `ValueError` for one that it does not have."""
        changed = copy.copy(self)
        for name, value in values.items():
            if name not in vars(self):
                raise ValueError(f"{self.name} has no {name}")
            setattr(changed, name, value)
        return changed

    @abstractmethod
    def forget(self, trained: Trained, case: Case, budget: Budget) -> Forgotten:
        """Make a trained federation forget what the case says; `trained` itself stays as it is."""


@runtime_checkable
class CountsBytes(Protocol):
    """A federation that knows what its one round has sent."""

    @property
    def sent_bytes(self) -> int:
        """Bytes to and from all hospitals."""


def weights_bytes(model: torch.nn.Module) -> int:
    """Return the bytes of one message with a model's weights."""
    return sum(weight.numel() * weight.element_size() for weight in model.state_dict().values())


def training_bytes(trained: Answers, num_rounds: int) -> int:
    """Return what training sent, weights to and from each hospital in each round; 0 where no one model is shared."""
    if isinstance(trained, CountsBytes):
        return trained.sent_bytes
    model = getattr(trained, "model", None)
    return 2 * weights_bytes(model) * num_rounds * len(trained.sites) if isinstance(model, torch.nn.Module) else 0
