"""What every attack has in common: it scores records, and members should score higher than others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from fedmunkey.common.model.metrics import membership_auroc, true_positives
from fedmunkey.simulations.federation.answers import Answers
from fedmunkey.simulations.federation.case import Case

FALSE_POSITIVES = 0.01
"""At which share of false positives true positives are counted."""


@dataclass(frozen=True)
class Attacked:
    """What is attacked.

    `before` is the federation before anything was forgotten; the same object as `state` if that is attacked.
    """

    state: Answers
    before: Answers


@dataclass(frozen=True)
class Shadow:
    """A federation that the attacker has trained, to see how answers about members and others differ.

    It may be asked as it was trained, with the members that were drawn, and after these were forgotten again.

    Attributes
    ----------
    members : mapping
        For each hospital, the record ids of those candidates that it was trained with.
    """

    trained: Answers
    deleted: Answers
    members: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Scores:
    """What an attack says: the higher, the surer it is that a record was learned from.

    `members` are forgotten records, without canaries; `others` those that they are to be told from: records that were
    never learned from or, where the question is who left, records that stay. Either is empty where there are none.
    """

    members: NDArray[np.float64]
    others: NDArray[np.float64]

    @classmethod
    def none(cls) -> Scores:
        """Return what an attack says that cannot be made on a federation."""
        return cls(np.empty(0), np.empty(0))

    @property
    def usable(self) -> bool:
        """Whether there is anything to tell apart."""
        return bool(len(self.members) and len(self.others))

    @property
    def auroc(self) -> float:
        """0.5 is chance."""
        return membership_auroc(self.members, self.others)

    @property
    def true_positives(self) -> float:
        """Share of members found at `FALSE_POSITIVES`."""
        return true_positives(self.members, self.others, FALSE_POSITIVES)

    def curve(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return false and true positives along all thresholds, each ascending from 0 to 1."""
        truth = np.concatenate([np.ones(len(self.members)), np.zeros(len(self.others))])
        false, true, _ = roc_curve(truth, np.concatenate([self.members, self.others]))
        return false, true


class Attack(ABC):
    """A way to tell who was there.

    Attributes
    ----------
    question : str
        What it tries to find out, in plain words.
    shadows : bool
        Whether it needs shadow federations.
    asked : str
        The subject of a sentence about it, if members' scores are log-probabilities of their labels, so that each can
        be compared with what the oracle says of the same record; else empty.
    holds : str
        With `asked`: what holds of a federation that has forgotten, as the title of a verdict.
    thorough : bool
        Whether it takes so long that it is left out unless asked for: images are encoded again.
    """

    name: str
    title: str
    question: str
    paper: str
    shadows: bool = False
    asked: str = ""
    holds: str = ""
    thorough: bool = False

    @abstractmethod
    def score(self, target: Attacked, case: Case, shadows: Sequence[Shadow]) -> Scores:
        """Score forgotten records and others."""
