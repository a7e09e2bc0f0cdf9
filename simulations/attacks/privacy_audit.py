"""How much privacy loss an attack's guesses prove: a lower bound on epsilon from one training run.

Steinke et al. 2023, "Privacy Auditing with One (1) Training Run", arXiv 2305.08846, theorem 5.2: of r guesses about
records that were each in or out with equal chance, an (epsilon, delta)-private training lets no more be right than
independent coins with bias e^epsilon / (1 + e^epsilon) do, save for what delta allows.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fedmunkey.simulations.attacks.attack import Scores

CONFIDENCE = 0.95
_LARGEST = 50.0
_SHARES = (0.1, 0.2, 0.5, 1.0)
"""Of all records, the most and the least suspected of which are guessed about; the level is divided among these."""


def empirical_epsilon(scores: Scores, delta: float, *, tests: int = 1, seed: int = 0) -> float:
    """Return an epsilon below which the scored training is not private, with `CONFIDENCE`; 0 if nothing is shown.

    As many others are drawn as there are members, or the other way round, so that each was in with equal chance.
    `tests` is by how many such bounds the level is shared, of which the largest may be taken.
    """
    count = min(len(scores.members), len(scores.others))
    if not count:
        return 0.0
    draws = np.random.default_rng(seed)
    some = [draws.choice(part, count, replace=False) for part in (scores.members, scores.others)]
    values = np.concatenate(some)
    inside = np.repeat([True, False], count)
    # Equal scores must not stand in the order of the truth.
    order = draws.permutation(2 * count)
    order = order[np.argsort(-values[order], kind="stable")]
    level = (1 - CONFIDENCE) / (tests * len(_SHARES))
    bounds = [_bound(inside[order], share, delta, level) for share in _SHARES]
    return max(bounds)


def most_provable(count: int, delta: float, *, tests: int = 1) -> float:
    """Return the bound that a faultless attack on so many members, and as many others, would have."""
    scores = Scores(np.ones(count), np.zeros(count))
    return empirical_epsilon(scores, delta, tests=tests)


def _bound(ranked: NDArray[np.bool_], share: float, delta: float, level: float) -> float:
    """Return the bound from guesses about both ends of a ranking."""
    each = max(1, round(share * len(ranked) / 2))
    right = int(ranked[:each].sum() + (~ranked[-each:]).sum())
    guesses = 2 * each
    if chance_of(right, guesses, len(ranked), 0.0, delta) > level:
        return 0.0
    low, high = 0.0, _LARGEST
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if chance_of(right, guesses, len(ranked), middle, delta) <= level else (low, middle)
    return low


def chance_of(right: int, guesses: int, records: int, epsilon: float, delta: float) -> float:
    """Return the largest chance that an (epsilon, delta)-private training leaves for so many right guesses or more."""
    # Only `certified` is audited so, and it takes long to import.
    from scipy.stats import binom

    coin = 1 / (1 + math.exp(-epsilon))
    chance = float(binom.sf(right - 1, guesses, coin))
    # Delta may turn up to i further guesses right; which i helps most is not known, so the worst one counts.
    below = binom.pmf(np.arange(right - 1, -1, -1), guesses, coin)
    worst = float((np.cumsum(below) / np.arange(1, right + 1)).max()) if right else 0.0
    return min(1.0, chance + 2 * records * delta * worst)
