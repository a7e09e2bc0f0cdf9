"""Verdicts about records one by one: what each one's label gets from the federation, and from two oracles.

A difference to the oracles is flagged only if it cannot be chance: if its interval lies beyond a margin that the two
differ by as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05
"""Chance of an interval that misses, shared by all verdicts of a kind."""

PROBABILITY_MARGIN = 0.02


@dataclass(frozen=True)
class Verdict:
    """One thing that was checked.

    It is flagged unless `passed`; `figures` are the numbers that the sentence rests on.
    """

    name: str
    title: str
    passed: bool
    sentence: str
    figures: dict[str, float] = field(default_factory=dict)


def z_of(tests: int) -> float:
    """Return how many standard errors half an interval is wide, where so many of them share `LEVEL`."""
    return NormalDist().inv_cdf(1 - LEVEL / 2 / tests)


def paired(name: str, title: str, who: str, by_state: Mapping[str, NDArray[np.float64]], *, tests: int = 1) -> Verdict:
    """Judge the mean difference of n records' probabilities to those of two oracles, record by record.

    `by_state` has (n,) probabilities of the states after, oracle and other_oracle, `who` is the subject of the
    sentence, and `tests` is the number of such verdicts.
    """
    z = z_of(tests)
    after, after_half = mean_of(by_state["after"] - (by_state["oracle"] + by_state["other_oracle"]) / 2, z)
    chance, _ = mean_of(by_state["other_oracle"] - by_state["oracle"], z)
    margin = max(PROBABILITY_MARGIN, abs(chance))
    count = len(by_state["after"])
    figures = {"difference": after, "half": after_half, "margin": margin, "records": count}
    figures["smallest"] = margin + after_half
    points = f"{100 * abs(after):.1f} ± {100 * after_half:.1f} points"
    if after - after_half > margin:
        sentence = f"{who} gives the labels of forgotten records {points} more than oracles do: they are remembered."
    elif after + after_half < -margin:
        sentence = (
            f"{who} gives the labels of forgotten records {points} less than oracles do: they are over-forgotten, "
            "which tells who they were just as well."
        )
    else:
        sentence = (
            f"{who} gives the labels of forgotten records {100 * after:+.1f} ± {100 * after_half:.1f} points against "
            f"oracles, within the {100 * margin:.1f} points that are chance. Of {count} records, "
            f"{100 * (margin + after_half):.1f} points would have been flagged."
        )
        return Verdict(name, title, True, sentence, figures)
    return Verdict(name, title, False, sentence, figures)


def mean_of(differences: NDArray[np.float64], z: float) -> tuple[float, float]:
    """Return a mean, and half of its interval of `z` standard errors; that is infinite for a single one."""
    half = z * differences.std(ddof=1) / math.sqrt(len(differences)) if len(differences) > 1 else math.inf
    return float(differences.mean()), float(half)
