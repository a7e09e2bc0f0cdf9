"""What a key store is made for, what it answers, and the rows that training changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import ImagePath

if TYPE_CHECKING:
    from torch import Tensor

SLACK = 4
"""Neighbours that a list holds beyond K."""


@dataclass(frozen=True)
class StoreDescription:
    """What fixes the contents of a key store.

    Attributes
    ----------
    encoder : str
        Fingerprint of the key encoder; keys of another encoder cannot be compared with these.
    image_path : ImagePath
        `PATCHES`: inputs are uint8 images. `FROZEN`: inputs are float32 feature tokens.
    list_length : int
        Neighbours kept for each record: K, and some more so that deletions seldom empty a list.
    guarantee : Guarantee
        What a deletion means for the shared weights, as the site has promised its patients.
    epsilon, delta : float
        The budget of a record's privacy loss over all training that the site has promised, where the guarantee is
        `CERTIFIED`; an epsilon of `inf` is no bound.
    """

    site: str
    encoder: str
    key_size: int
    image_path: ImagePath
    input_shape: tuple[int, ...]
    exemplar_size: int
    list_length: int
    guarantee: Guarantee
    epsilon: float
    delta: float


@dataclass(frozen=True)
class Enrolled:
    """How many records were added, were known before and left as they were, and were refused.

    A record is refused if it was deleted before, or its subject was; new consent lets it in. One that is on the opt-out
    list, or whose subject is, is left out whatever the consent.
    """

    added: int = 0
    known: int = 0
    refused: int = 0
    opted_out: int = 0

    def __add__(self, other: Enrolled) -> Enrolled:
        return Enrolled(
            self.added + other.added,
            self.known + other.known,
            self.refused + other.refused,
            self.opted_out + other.opted_out,
        )


@dataclass(frozen=True)
class Tokens:
    """What training changes of n entries: (n, E) float32 offsets, and their optimiser state.

    That is two moments of the same shape, and (n,) int64 optimiser steps that each offset has taken.
    """

    offsets: Tensor
    first_moments: Tensor
    second_moments: Tensor
    steps: Tensor

    def select(self, rows: Tensor) -> Tokens:
        """Return some of the rows."""
        return Tokens(self.offsets[rows], self.first_moments[rows], self.second_moments[rows], self.steps[rows])

    def copy_(self, other: Tokens) -> None:
        """Take over another's rows, in place."""
        self.offsets.copy_(other.offsets)
        self.first_moments.copy_(other.first_moments)
        self.second_moments.copy_(other.second_moments)
        self.steps.copy_(other.steps)

    def pack(self) -> Iterator[bytes]:
        """Yield each entry's row as bytes of one length: steps, offset, first and second moment."""
        arrays = (self.offsets.numpy(), self.first_moments.numpy(), self.second_moments.numpy())
        for steps, *parts in zip(self.steps.numpy(), *arrays, strict=True):
            yield steps.tobytes() + b"".join(part.tobytes() for part in parts)

    def unpack(self, row: int, content: bytes) -> None:
        """Set one entry's row from what `pack` yielded."""
        size = self.offsets.shape[1]
        self.steps[row] = steps_of(content)
        parts = np.frombuffer(content, np.float32, 3 * size, offset=8).reshape(3, size)
        for tensor, part in zip((self.offsets, self.first_moments, self.second_moments), parts, strict=True):
            tensor.numpy()[row] = part

    @staticmethod
    def packed_size(size: int) -> int:
        """Return how many bytes a row of E-number tokens takes."""
        return 8 + 3 * 4 * size

    @classmethod
    def zeros(cls, count: int, size: int) -> Tokens:
        """Return the tokens of entries that have not been trained."""
        # A site that only forgets needs no tensor, and importing torch would take it seconds.
        import torch

        return cls(
            torch.zeros(count, size),
            torch.zeros(count, size),
            torch.zeros(count, size),
            torch.zeros(count, dtype=torch.int64),
        )


def steps_of(content: bytes) -> int:
    """Return how many optimiser steps the offset in a packed row has taken."""
    return int(np.frombuffer(content, np.int64, 1)[0])
