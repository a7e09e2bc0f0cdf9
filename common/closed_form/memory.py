"""What a hospital's own records add to the federation's answer, solved for as well.

The federation's weights know nothing of one record where its left-out answer is wrong: r = y - x W_without. Exemplar
tokens a are kernel ridge regression of that over the hospital's bank (Saunders et al. 1998),

    a = (K + mu I)^-1 r,        answer = x W + sum_j k(x, x_j) a_j,

with k(x, x') = x x' or, where that is no better, a constant: then the memory only knows the hospital's case mix. The
kernel and mu are those of the least leave-one-out error, (a_i / (K + mu I)^-1_ii)^2. Since both kernels are linear, all
tokens together are one matrix, V = sum_j x_j a_j, by which an image is answered without looking any record up.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from fedmunkey.common.closed_form.feature_map import CONSTANT, SCALE, SCALE_BITS, Numbers
from fedmunkey.common.closed_form.linear_answers import (
    WholeWeights,
    best_temperature,
    likelihoods,
    scores,
    whole_weights,
)
from fedmunkey.common.closed_form.sums import Whole

_STRENGTHS = tuple(10.0 ** (step / 2) for step in range(-4, 7))
"""mu: 0.01 to 1,000."""


class Kernel(StrEnum):
    """How two records agree: not at all, always alike, or by the product of their numbers."""

    NONE = "none"
    CONSTANT = "constant"
    LINEAR = "linear"


@dataclass(frozen=True)
class Memory:
    """What a bank adds to the federation's scores.

    Attributes
    ----------
    kernel : Kernel
        Which was chosen.
    weights : WholeWeights
        V, (size, classes) in whole numbers of 2^-20.
    tokens : ndarray
        a, (n, classes) float64: one row for each record of the bank, in its order.
    temperature : float
        At which answers with the memory are calibrated.
    """

    kernel: Kernel
    weights: WholeWeights
    tokens: Numbers
    temperature: float

    def add(self, numbers: Numbers, scored: Numbers) -> Numbers:
        """Return the federation's (n, classes) scores with what the memory adds."""
        with_memory: Numbers = scored + scores(numbers, self.weights)
        return with_memory


def solve_memory(numbers: Numbers, labels: Whole, left_out: Numbers, temperature: float) -> Memory:
    """Solve for the exemplar tokens of n records.

    Parameters
    ----------
    numbers, labels
        (n, size) whole numbers as a feature map reads them, and (n,) classes.
    left_out : ndarray
        (n, classes) the federation's scores of each record by weights that have not seen its fold.
    temperature : float
        At which the federation's own answers are calibrated; kept where there is no record.
    """
    size, classes = numbers.shape[1], left_out.shape[1]
    nothing = Memory(
        Kernel.NONE, np.zeros((size, classes), dtype=np.int32), np.zeros((len(labels), classes)), temperature
    )
    if len(labels) < 2:
        return nothing
    # Rounded, so that sums of products are exact and do not depend on the order of the records.
    residuals = np.rint((np.eye(classes)[labels] - left_out) * SCALE) / SCALE
    best, chosen, error = nothing, left_out, _mean_square(residuals)
    for kernel in (Kernel.CONSTANT, Kernel.LINEAR):
        read = numbers if kernel is Kernel.LINEAR else np.full((len(labels), 1), float(CONSTANT))
        for solved, tokens, apart in _solutions(read, residuals):
            if (squared := _mean_square(apart)) < error:
                weights = np.zeros((size, classes))
                weights[-solved.shape[0] :] = solved
                best = Memory(kernel, whole_weights(weights), tokens, temperature)
                chosen, error = left_out + residuals - apart, squared
    calibrated = best_temperature(likelihoods(chosen, labels))
    return Memory(best.kernel, best.weights, best.tokens, calibrated)


def _solutions(read: Numbers, residuals: Numbers) -> list[tuple[Numbers, Numbers, Numbers]]:
    """Return, for each strength: V, tokens, and the residuals that are left of each record when it is left out.

    In the records' space or in that of their numbers, whichever is smaller.
    """
    scaled = read / 2.0**SCALE_BITS
    few = len(scaled) < scaled.shape[1]
    values, vectors = np.linalg.eigh(scaled @ scaled.T if few else scaled.T @ scaled)
    values = np.maximum(values, 0.0)
    found = []
    if few:
        turned = vectors.T @ residuals
        for strength in _STRENGTHS:
            tokens = vectors @ (turned / (values + strength)[:, None])
            diagonal = (vectors * vectors) @ (1 / (values + strength))
            found.append((scaled.T @ tokens, tokens, tokens / diagonal[:, None]))
        return found
    seen, projected = scaled @ vectors, vectors.T @ (scaled.T @ residuals)
    for strength in _STRENGTHS:
        solved = vectors @ (projected / (values + strength)[:, None])
        left = residuals - scaled @ solved
        leverage = (seen * seen) @ (1 / (values + strength))
        found.append((solved, left / strength, left / (1 - leverage)[:, None]))
    return found


def _mean_square(residuals: Numbers) -> float:
    # Rounded, so that no last bit decides between two that are as good.
    return round(float((residuals * residuals).mean()), 9)
