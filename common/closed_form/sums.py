"""What shared weights are solved from: sums over records of products of whole numbers.

With q a record's numbers and y its class as a one-hot vector, a fold of some records has

    G = sum q q^T,   M = sum q y^T,   n = sum y.

Each is whole and below 2^53, so that float64 adds it exactly: in any order, in blocks of any size, by any number of
threads and divided among any number of hospitals the sums have the same bits.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmunkey.common.closed_form.feature_map import CONSTANT, SCALE_BITS, Numbers
from fedmunkey.common.errors import InvalidWeights

Whole = NDArray[np.int64]

MOST_RECORDS = 2 ** (53 - 2 * SCALE_BITS)
"""Of so many records every sum is below 2^53."""


@dataclass(frozen=True)
class SumsShape:
    """Sums in so many folds, of records with so many numbers, of so many classes."""

    folds: int
    size: int
    classes: int

    @property
    def length(self) -> int:
        """How many whole numbers the sums are: of a symmetric matrix one half is enough."""
        return self.folds * (self.size * (self.size + 1) // 2 + self.size * self.classes + self.classes)


@dataclass(frozen=True)
class Sums:
    """Sums over some records.

    `grams` are (folds, size, size), `moments` (folds, size, classes), `counts` (folds, classes), all float64 of whole
    numbers.
    """

    grams: Numbers
    moments: Numbers
    counts: Numbers

    @classmethod
    def zeros(cls, shape: SumsShape) -> Sums:
        """Return the sums over no record."""
        return cls(
            np.zeros((shape.folds, shape.size, shape.size)),
            np.zeros((shape.folds, shape.size, shape.classes)),
            np.zeros((shape.folds, shape.classes)),
        )

    @property
    def shape(self) -> SumsShape:
        """How large they are."""
        folds, size, classes = self.moments.shape
        return SumsShape(folds, size, classes)

    @property
    def records(self) -> int:
        """Over how many records they are."""
        return int(self.counts.sum())

    def add(self, numbers: Numbers, labels: Whole, folds: Whole) -> None:
        """Add n records in place: (n, size) whole numbers as a feature map reads them, (n,) classes and (n,) folds.

        Raises `ValueError` if sums could no longer be exact.
        """
        if self.records + len(numbers) > MOST_RECORDS:
            raise ValueError(f"sums over more than {MOST_RECORDS} records are not exact")
        one_hot = np.eye(self.shape.classes)[labels]
        for fold in np.unique(folds).tolist():
            rows = folds == fold
            some, classes = numbers[rows], one_hot[rows]
            if self.counts[fold].any():
                self.grams[fold] += some.T @ some
            else:
                # Of few records, most of the time would go into a second matrix.
                np.matmul(some.T, some, out=self.grams[fold])
            self.moments[fold] += some.T @ classes
            self.counts[fold] += classes.sum(0)

    def plus(self, other: Sums) -> Sums:
        """Return the sums over both."""
        return Sums(self.grams + other.grams, self.moments + other.moments, self.counts + other.counts)

    def to_numbers(self) -> NDArray[np.uint64]:
        """Return the sums as one row of whole numbers modulo 2^64, in which masks are added to them."""
        upper = _upper(self.shape.size)
        halves = [gram[upper] for gram in self.grams]
        row = np.concatenate([*halves, self.moments.reshape(-1), self.counts.reshape(-1)])
        return row.astype(np.int64).view(np.uint64)

    @classmethod
    def from_numbers(cls, row: NDArray[np.uint64], shape: SumsShape) -> Sums:
        """Read what `to_numbers` wrote, or the sum of several such rows modulo 2^64.

        Raises `InvalidWeights` if these are no sums over any records: masks that do not cancel leave no trace of sums.
        """
        if row.shape != (shape.length,):
            raise InvalidWeights(f"{row.size} numbers are not the {shape.length} of sums of this federation")
        whole = row.view(np.int64)
        half, per_moment = shape.size * (shape.size + 1) // 2, shape.size * shape.classes
        upper = _upper(shape.size)
        sums = cls.zeros(shape)
        for fold in range(shape.folds):
            sums.grams[fold][upper] = whole[fold * half : (fold + 1) * half]
            sums.grams[fold].T[upper] = sums.grams[fold][upper]
        moments = whole[shape.folds * half :][: shape.folds * per_moment]
        sums.moments[:] = moments.reshape(sums.moments.shape)
        sums.counts[:] = whole[shape.folds * (half + per_moment) :].reshape(sums.counts.shape)
        if fault := _fault(sums):
            raise InvalidWeights(f"these are no sums over records: {fault}")
        return sums

    def digest(self) -> str:
        """Return the SHA-256 of the sums, in hexadecimal."""
        return hashlib.sha256(self.to_numbers().tobytes()).hexdigest()


def _upper(size: int) -> NDArray[np.bool_]:
    """Return where a symmetric matrix is read, row by row; a mask is read faster than a list of places."""
    return np.triu(np.ones((size, size), dtype=np.bool_))


def _fault(sums: Sums) -> str:
    """Return by what it shows that no records have these sums; empty for nothing."""
    counts = sums.counts.sum(1)
    if sums.counts.min(initial=0) < 0 or counts.sum() > MOST_RECORDS:
        return "a class has a count that is negative or too large"
    # The last number of each record is the constant.
    if not np.array_equal(sums.moments[:, -1], CONSTANT * sums.counts):
        return "their constants do not agree with the counts"
    if not np.array_equal(sums.grams[:, -1, -1], float(CONSTANT**2) * counts):
        return "their constants do not agree with the counts"
    squares = np.diagonal(sums.grams, axis1=1, axis2=2)
    if squares.min(initial=0) < 0 or (squares > counts[:, None] * 2.0 ** (2 * SCALE_BITS)).any():
        return "a number's square is negative or too large"
    # Cauchy and Schwarz, with room for the rounding of roots.
    roots = np.sqrt(squares)
    if any(
        (np.abs(gram) > np.outer(root, root) * (1 + 1e-9)).any() for gram, root in zip(sums.grams, roots, strict=True)
    ):
        return "two numbers agree more than each with itself"
    if (np.abs(sums.moments) > np.sqrt(squares[:, :, None] * sums.counts[:, None]) * (1 + 1e-9)).any():
        return "a number agrees with a class more than with itself"
    return ""
