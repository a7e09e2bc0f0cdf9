"""Records with their images, as they come from a file and before they are enrolled in a key store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fedmunkey.common.errors import InvalidDataset
from fedmunkey.common.settings.settings import ImageShape

T = TypeVar("T")

BATCH = 64
"""Records that are in memory, and in one transaction, at a time: what an interruption may cost."""


class Split(StrEnum):
    """What a record is for: only `train` records get an entry in the bank; the others are held out."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class Consent(StrEnum):
    """Whether a record's consent may be withdrawn."""

    REVOCABLE = "revocable"
    PERMANENT = "permanent"


@dataclass(frozen=True, eq=False)
class Dataset:
    """N records, one array for each of their properties.

    Attributes
    ----------
    images : ndarray
        (N, C, H, W) uint8, C being 1 or 3.
    labels : ndarray
        (N,) int64 class indices.
    record_ids, subject_ids : ndarray
        (N,) str; record ids are unique, a subject may have many records.
    splits : ndarray
        (N,) str, values of `Split`.
    consents : ndarray
        (N,) str, values of `Consent`.
    sources : ndarray or None
        (N,) str, the hospital, scanner or smear that each record came from; None where nobody has said.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    record_ids: NDArray[np.str_]
    subject_ids: NDArray[np.str_]
    splits: NDArray[np.str_]
    consents: NDArray[np.str_]
    class_names: tuple[str, ...]
    sources: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        """Check that the arrays fit together.

        Raises `InvalidDataset` if lengths differ, images are not (N, 1 or 3, H, W) uint8, a label has no class or a
        record id comes twice.
        """
        counts = {len(array) for array in self._columns()}
        if len(counts) != 1:
            raise InvalidDataset(f"images, labels and ids differ in number: {sorted(counts)}")
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[1] not in (1, 3):
            raise InvalidDataset(f"images must be (N, 1 or 3, H, W) uint8, not {self.images.shape} {self.images.dtype}")
        if len(self) and not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise InvalidDataset(
                f"labels reach from {self.labels.min()} to {self.labels.max()}, but there are "
                f"{len(self.class_names)} classes"
            )
        if len(np.unique(self.record_ids)) != len(self):
            raise InvalidDataset("a record id comes more than once; every record needs its own")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def image_shape(self) -> ImageShape:
        """Channels, height and width of an image."""
        _, channels, height, width = self.images.shape
        return ImageShape((channels, height, width))

    def select(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Dataset:
        """Return some of the records, by position or by mask."""
        return Dataset(
            self.images[rows],
            self.labels[rows],
            self.record_ids[rows],
            self.subject_ids[rows],
            self.splits[rows],
            self.consents[rows],
            self.class_names,
            None if self.sources is None else self.sources[rows],
        )

    def batches(self) -> Iterator[Dataset]:
        """Yield the records in their order, some at a time."""
        for rows in batches(range(len(self))):
            yield self.select(np.array(rows))

    def split(self, split: Split) -> Dataset:
        """Return the records of one split."""
        return self.select(self.splits == split.value)

    def _columns(self) -> tuple[NDArray[np.generic], ...]:
        given = () if self.sources is None else (self.sources,)
        return self.images, self.labels, self.record_ids, self.subject_ids, self.splits, self.consents, *given


def batches(items: Iterable[T]) -> Iterator[list[T]]:
    """Yield items in their order, as many at a time as may be in memory."""
    left = iter(items)
    while some := list(islice(left, BATCH)):
        yield some
