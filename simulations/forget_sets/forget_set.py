"""What every forget set has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from fedmunkey.simulations.federation.case import Rows
from fedmunkey.simulations.federation.hospitals import Hospital


@dataclass(frozen=True)
class Drawn:
    """What is to be forgotten.

    Hospitals have their records as they will be learned, canaries with wrong labels; deletions come one after the
    other.
    """

    hospitals: Sequence[Hospital]
    deletions: Sequence[Rows]
    canaries: Rows


class ForgetSet(ABC):
    """A way to choose what is forgotten.

    `name` is what users write, `title` the same in plain words.
    """

    name: str
    title: str

    @abstractmethod
    def draw(self, hospitals: Sequence[Hospital], share: float, seed: int) -> Drawn:
        """Choose from the training records whose consent may be withdrawn.

        `share`, in (0, 1), is of all training records that are forgotten. Raises `InvalidDeletion` if there are not
        enough such records.
        """
