"""What every way to forget has in common.

A *family* is an architecture with its way of training; it learns a federation and, given only the retained records,
its own oracle. A *method* takes a trained federation of its family and makes it forget.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from fedmunkey.common.model import ModelShape
from fedmunkey.common.settings import Settings
from fedmunkey.simulations.answers import Answering
from fedmunkey.simulations.case import Case
from fedmunkey.simulations.hospitals import Encoded

Trained = TypeVar("Trained", bound=Answering)

AfterRound = Callable[[int, Answering], None]
"""Called after each round, from 1, with the federation as it is then."""


class Family(ABC, Generic[Trained]):
    """An architecture and how a federation of it learns.

    Attributes
    ----------
    name : str
        As users write it.
    """

    name: str

    @abstractmethod
    def train(
        self,
        records: Mapping[str, Encoded],
        settings: Settings,
        shape: ModelShape,
        *,
        after_round: AfterRound | None = None,
    ) -> Trained:
        """Train a federation on its hospitals' training records.

        Parameters
        ----------
        records : mapping
            For each hospital, by name, its training records; one without any does not take part.
        settings : Settings
            Rounds, local epochs, rates, seed.
        shape : ModelShape
            Image path, sizes and classes.
        after_round : callable, optional
            Called after each round of averaging.
        """


@dataclass(frozen=True)
class Budget:
    """What a method that trains again may use, the same for all but retraining itself.

    Attributes
    ----------
    rounds : int
        Rounds of local training and averaging.
    """

    rounds: int


@dataclass(frozen=True)
class Forgotten:
    """What a method made of a trained federation.

    Attributes
    ----------
    answers : Answering
        The federation afterwards.
    bytes_sent : int
        Shared weights, or anything as large, sent to and from all hospitals in order to forget.
    """

    answers: Answering
    bytes_sent: int


class Method(ABC, Generic[Trained]):
    """A way to forget.

    Attributes
    ----------
    name : str
        As users write it, such as `fine-tuning`.
    title : str
        As a table shows it.
    paper : str
        Authors, year and arXiv number or venue of where it comes from.
    family : Family
        What it can be applied to.
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

    @abstractmethod
    def forget(self, trained: Trained, case: Case, budget: Budget) -> Forgotten:
        """Make a trained federation forget what the case says; `trained` itself stays as it is."""
