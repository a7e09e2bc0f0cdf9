"""Who has left, to somebody who keeps two releases, or two totals, that are solved for, and has the candidates.

Of ridge regression everything is linear: without a record x of class y the weights differ by

    W - W' = (G' + lambda I)^-1 x r^T,   r = y - x W,

so that x (W - W') points where r does, and for the record that left more than for others; the totals differ by x x^T
itself, which gives the record away.
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
