"""Solving for shared weights: ridge regression of one-hot labels, its strength chosen on left-out answers.

With sums over all records (`sums`), x = q / 2^14 and a ridge lambda,

    W = (sum x x^T + lambda I)^-1 sum x y^T                      (Hoerl and Kennard 1970).

Each fold is left out once, and its records are asked of the weights that have not seen them. That takes a second
exchange, in which sites count, for each lambda, how many of their records were answered rightly.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmunkey.common.closed_form.feature_map import SCALE, Numbers
from fedmunkey.common.closed_form.linear_answers import (
    LIKELIHOOD_BITS,
    TEMPERATURES,
    WholeWeights,
    best_temperature,
    likelihoods,
    scores,
    whole_weights,
)
from fedmunkey.common.closed_form.sums import Sums
from fedmunkey.common.errors import InvalidWeights

RIDGES = tuple(10.0 ** (step / 4) for step in range(-12, 7))
"""The strengths that are tried: 0.001 to about 32."""

_TOLERANCE = 0.5
"""Standard errors by which a ridge may answer fewer left-out records rightly than the best and still be as good."""


@dataclass(frozen=True)
class Choice:
    """Which ridge was chosen, at which temperature its answers are calibrated, and how well they did, left out.

    `accuracy` is a share of all records, `likelihood` their mean negative log-likelihood in nats.
    """

    ridge: float
    temperature: float
    accuracy: float
    likelihood: float


def left_out_weights(sums: Sums) -> WholeWeights:
    """Return (ridges, folds, size, classes) weights, each solved from all folds but one."""
    grams, moments = sums.grams.sum(0), sums.moments.sum(0)

    def without(fold: int) -> Numbers:
        return _solve_all(grams - sums.grams[fold], moments - sums.moments[fold])

    # Folds are solved side by side: whoever waits for renewed weights waits for this most.
    with ThreadPoolExecutor() as pool:
        solved = list(pool.map(without, range(len(sums.grams))))
    return whole_weights(np.stack(solved, axis=1))


def shared_weights(sums: Sums, ridge: float) -> WholeWeights:
    """Return (size, classes) weights solved from all folds."""
    gram = sums.grams.sum(0) / SCALE**2
    gram[np.diag_indices_from(gram)] += ridge
    return whole_weights(np.linalg.solve(gram, sums.moments.sum(0) / SCALE))


def tally(
    left_out: WholeWeights, numbers: Numbers, labels: NDArray[np.int64], folds: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return (ridges, 1 + temperatures) whole sums over n records, each asked of the weights without its fold.

    Behind how many were answered rightly come the sums of their negative log-likelihoods (`likelihoods`).
    """
    sums = np.zeros((len(left_out), 1 + len(TEMPERATURES)), dtype=np.int64)
    for ridge, by_fold in enumerate(left_out):
        scored = left_out_scores(by_fold, numbers, folds)
        sums[ridge, 0] = (scored.argmax(1) == labels).sum()
        sums[ridge, 1:] = likelihoods(scored, labels)
    return sums


def left_out_scores(by_fold: WholeWeights, numbers: Numbers, folds: NDArray[np.int64]) -> Numbers:
    """Return (n, classes) scores of records, each by those of (folds, size, classes) weights without its fold."""
    scored = np.empty((len(numbers), by_fold.shape[2]))
    for fold, weights in enumerate(by_fold):
        scored[folds == fold] = scores(numbers[folds == fold], weights)
    return scored


def choose(tallies: NDArray[np.int64], records: int) -> tuple[int, Choice]:
    """Return the place of the ridge to take, and what is known of it.

    It is the middle one, the stronger of two, of those that answer as many left-out records rightly as the best, up to
    half a standard error: the best alone depends on chance, and the strongest holds back more than it must.
    Raises `InvalidWeights` if the tallies are not those of so many records.
    """
    right = tallies[:, 0]
    if records < 1 or right.min() < 0 or right.max() > records or tallies.min() < 0:
        raise InvalidWeights(f"the tallies are not those of {records} records")
    best = int(right.max()) / records
    least = best - _TOLERANCE * math.sqrt(best * (1 - best) / records)
    as_good = np.flatnonzero(right / records >= least)
    place = int(as_good[len(as_good) // 2])
    lost = tallies[place, 1:]
    return place, Choice(
        ridge=RIDGES[place],
        temperature=best_temperature(lost),
        accuracy=int(right[place]) / records,
        likelihood=int(lost.min()) / 2**LIKELIHOOD_BITS / records,
    )


def _solve_all(gram: Numbers, moments: Numbers) -> Numbers:
    """Return (ridges, size, classes) weights from sums, by one eigendecomposition."""
    values, vectors = np.linalg.eigh(gram / SCALE**2)
    projected = vectors.T @ (moments / SCALE)
    return np.stack([vectors @ (projected / (np.maximum(values, 0.0) + ridge)[:, None]) for ridge in RIDGES])
