"""Small records as a feature map reads them."""

from __future__ import annotations

import numpy as np

from fedmunkey.common.closed_form.feature_map import CONSTANT, SCALE, Numbers
from fedmunkey.common.closed_form.folds import FOLDS
from fedmunkey.common.closed_form.sums import Sums, SumsShape, Whole

CLASSES = 3
SIZE = 6


def numbered(count: int, *, seed: int = 0, size: int = SIZE, classes: int = CLASSES) -> tuple[Numbers, Whole, Whole]:
    """Return whole numbers, classes and folds of some records; a record's class can be seen in its numbers."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, count)
    read = draw.normal(0, 0.15, (count, size))
    read[np.arange(count), labels % (size - 1)] += 0.35
    whole = np.rint(np.clip(read, -0.9, 0.9) * SCALE)
    whole[:, -1] = CONSTANT
    return whole, labels, draw.integers(0, FOLDS, count)


def summed(numbers: Numbers, labels: Whole, folds: Whole, *, classes: int = CLASSES) -> Sums:
    """Return the sums over some records."""
    sums = Sums.zeros(SumsShape(FOLDS, numbers.shape[1], classes))
    sums.add(numbers, labels, folds)
    return sums
