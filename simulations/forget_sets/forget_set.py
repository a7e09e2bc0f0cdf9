"""What every forget set has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from fedmunkey.simulations.case import Rows
from fedmunkey.simulations.hospitals import Hospital


@dataclass(frozen=True)
class Drawn:
    """What is to be forgotten.

    Attributes
    ----------
    hospitals : sequence of Hospital
        With their records as they will be learned; canaries have wrong labels.
    deletions : sequence of Rows
        One after the other.
    canaries : Rows
        Those of the deleted records whose label is wrong.
    """

    hospitals: Sequence[Hospital]
    deletions: Sequence[Rows]
    canaries: Rows


class ForgetSet(ABC):
    """A way to choose what is forgotten.

    Attributes
    ----------
    name : str
        As users write it.
    title : str
        In plain words.
    """

    name: str
    title: str

    @abstractmethod
    def draw(self, hospitals: Sequence[Hospital], share: float, seed: int) -> Drawn:
        """Choose from the training records whose consent may be withdrawn.

        Parameters
        ----------
        hospitals : sequence of Hospital
            All of them.
        share : float
            Share, in (0, 1), of all training records that is forgotten.
        seed : int
            The same seed draws the same records.

        Raises
        ------
        InvalidDeletion
            If there are not enough such records.
        """
