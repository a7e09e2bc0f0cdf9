"""Who has left, to somebody who keeps two releases, or two totals, that are solved for, and has the candidates.

Of ridge regression everything is linear: without a record x of class y the weights differ by

    W - W' = (G' + lambda I)^-1 x r^T,   r = y - x W,

so that x (W - W') points where r does, and for the record that left more than for others; the totals differ by x x^T
itself, which gives the record away. Where one record left, W - W' is of rank one, and whoever can guess G' can turn it
back into x, whose image he need not have: "Data reconstruction from the difference of two models", arXiv 2505.11097.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedmunkey.common.closed_form.feature_map import SCALE, Numbers
from fedmunkey.common.closed_form.linear_answers import WEIGHT_BITS
from fedmunkey.common.closed_form.release import Release
from fedmunkey.common.closed_form.sums import Sums

_TOLERANCE = 1e-9
"""Of the largest eigenvalue: of the totals' difference smaller ones are rounding."""


def score_by_weights(
    before: Release, after: Release, numbers: Numbers, labels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Score n candidates, as a feature map reads them, by how much nearer to their class the first release was."""
    classes = np.eye(before.classes)[labels]
    first, then = (numbers / SCALE @ (one.weights / 2.0**WEIGHT_BITS) for one in (before, after))
    return np.asarray(((first - then) * (classes - first)).sum(1))


def score_by_totals(before: Sums, after: Sums, numbers: Numbers) -> NDArray[np.float64]:
    """Score n candidates by the share of them that lies in the space which the difference of two totals spans."""
    values, vectors = np.linalg.eigh((before.grams - after.grams).sum(0))
    spanned = vectors[:, np.abs(values) > _TOLERANCE * np.abs(values).max()]
    return np.asarray(((numbers @ spanned) ** 2).sum(1) / (numbers**2).sum(1))


def features_by_weights(before: Release, after: Release, own: Sums) -> Numbers:
    """Return (size,) numbers of the one record that left, up to their length, as two releases give them away.

    `own` are sums over records of the same kind that whoever asks has himself; they stand for those of the federation,
    brought to as many records.
    """
    difference = (before.weights - after.weights.astype(np.int64)) / 2.0**WEIGHT_BITS
    left, _, _ = np.linalg.svd(difference, full_matrices=False)
    records = float(after.about["records"])
    gram = own.grams.sum(0) / SCALE**2 * (records / own.records)
    found: Numbers = (gram + after.choice.ridge * np.eye(len(gram))) @ left[:, 0]
    return found


def features_by_totals(before: Sums, after: Sums) -> Numbers:
    """Return (size,) numbers of the one record that left, up to their length, as two totals give them away."""
    _, vectors = np.linalg.eigh((before.grams - after.grams).sum(0))
    found: Numbers = vectors[:, -1]
    return found


def likeness(found: Numbers, numbers: Numbers, mean: Numbers) -> float:
    """Return the cosine of what was found with a record's (size,) numbers, each without its part along the mean.

    Records of one kind have much in common: what is found shall be this one's own. The sign of what is found is open.
    """
    centre = mean / np.linalg.norm(mean)
    mine, its = (_unit(one - (one @ centre) * centre, like=one) for one in (found, numbers))
    return abs(float(mine @ its))


def _unit(numbers: Numbers, like: Numbers) -> Numbers:
    """Return numbers brought to length 1, or to 0 if beside others they are rounding."""
    length = np.linalg.norm(numbers)
    unit: Numbers = numbers * (0.0 if length <= _TOLERANCE * np.linalg.norm(like) else 1 / length)
    return unit
