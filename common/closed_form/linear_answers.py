"""What linear weights make of records' numbers: scores that are the same whatever is asked together.

Weights are whole numbers too, of 2^-20, so that a score is a sum of products below 2^53 and exact in any order. Scores
estimate the classes' probabilities, as the regression is on one-hot labels; a softmax of some temperature calibrates
them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fedmunkey.common.closed_form.feature_map import SCALE_BITS, Numbers
from fedmunkey.common.errors import InvalidWeights

WholeWeights = NDArray[np.int32]

WEIGHT_BITS = 20

TEMPERATURES = (0.04, 0.06, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5)
"""Those that calibration chooses from."""

LIKELIHOOD_BITS = 20
"""A record's negative log-likelihood is rounded to so many bits behind the point, so that sums are exact."""

_LARGEST_LIKELIHOOD = 2.0**10


def whole_weights(weights: Numbers) -> WholeWeights:
    """Round (..., size, classes) weights to whole numbers of 2^-20.

    Raises `InvalidWeights` if one of them is too large, or no number, so that scores would not be exact.
    """
    whole = np.rint(weights * 2.0**WEIGHT_BITS)
    check_weights(whole)
    return whole.astype(np.int32)


def check_weights(whole: NDArray[np.generic]) -> None:
    """Check that scores by (..., size, classes) whole weights are exact; raises `InvalidWeights`."""
    wide = np.abs(whole.astype(np.float64))
    if not (wide < 2**31).all() or not (wide.sum(-2) < 2.0 ** (53 - SCALE_BITS)).all():
        raise InvalidWeights("weights are too large, or no numbers; a larger ridge makes them smaller")


def scores(numbers: Numbers, weights: WholeWeights) -> Numbers:
    """Return (n, classes) scores of (n, size) numbers by (size, classes) whole weights."""
    exact: Numbers = (numbers @ weights.astype(np.float64)) / 2.0 ** (SCALE_BITS + WEIGHT_BITS)
    return exact


def probabilities(scored: Numbers, temperature: float) -> Numbers:
    """Return the (n, classes) softmax of scores over a temperature."""
    shifted = np.exp((scored - scored.max(1, keepdims=True)) / temperature)
    shares: Numbers = shifted / shifted.sum(1, keepdims=True)
    return shares


def likelihoods(scored: Numbers, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for each temperature, the sum of n records' negative log-likelihoods, in nats of 2^-20, each rounded."""
    gaps = scored - scored[np.arange(len(labels)), labels][:, None]
    largest = gaps.max(1, keepdims=True)
    sums = []
    for temperature in TEMPERATURES:
        lost = largest[:, 0] / temperature + np.log(np.exp((gaps - largest) / temperature).sum(1))
        sums.append(np.rint(np.minimum(lost, _LARGEST_LIKELIHOOD) * 2.0**LIKELIHOOD_BITS).sum())
    return np.array(sums, dtype=np.int64)


def best_temperature(sums: NDArray[np.int64]) -> float:
    """Return the temperature under which some records are likeliest."""
    return TEMPERATURES[int(np.argmin(sums))] if len(sums) else math.nan
