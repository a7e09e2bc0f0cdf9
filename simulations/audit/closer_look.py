"""Verdicts about some of the forgotten records, and about the privacy loss that is claimed for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmunkey.simulations.attacks.privacy_audit import CONFIDENCE, empirical_epsilon, most_provable
from fedmunkey.simulations.audit.record_verdicts import LEVEL, PROBABILITY_MARGIN, Verdict
from fedmunkey.simulations.audit.trial import Trial
from fedmunkey.simulations.forget_sets.registry import SEQUENCES

AT_RANDOM = frozenset({"random", "random+canaries", *(one.name for one in SEQUENCES)})
"""Forget sets whose honest records are drawn: guesses about others prove nothing of a privacy loss."""

_FEWEST = 5
"""Records in a group, of all trials together, below which nothing is said of it."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Claimed:
    """The privacy loss of one record that deletions under `certified` claim."""

    epsilon: float
    delta: float


def most_vulnerable(trials: Sequence[Trial]) -> list[Verdict]:
    """Judge the tenth of the records that stood out most before they were forgotten; nothing where these are too few.

    RULI, arXiv 2506.13009: attacks that average over all records miss the few that a method leaves behind. They are
    chosen by what the federation knew of them and one oracle did not, and judged by the other, or whoever is badly
    known to the oracle by chance would be chosen and found. So only what is remembered is judged, not over-forgetting.
    Who deletes keys keeps the weights, and by chance these are surer of some records than an oracle's, learned or not:
    as much as the test records that are chosen in the same way have more than the oracle is allowed for.
    """
    known, unseen = _known(trials), _known(trials, "test_confidence")
    count = math.ceil(len(known["before"]) / 10)
    if count < _FEWEST:
        return []
    chosen, by_chance = _stand_out(known, count), _stand_out(unseen, math.ceil(len(unseen["before"]) / 10))
    favoured = float(np.mean(unseen["after"][by_chance] - unseen["oracle"][by_chance]))
    stood_out, _ = _mean(known["before"][chosen] - known["oracle"][chosen], 1)
    left, half = _mean(known["after"][chosen] - known["oracle"][chosen], 1)
    chance, chance_half = _mean(known["other_oracle"] - known["oracle"], 1)
    margin = max(PROBABILITY_MARGIN, abs(chance) + chance_half) + max(0.0, favoured)
    passed = left - half <= margin
    sentence = (
        f"The {count} records that stood out most had {100 * stood_out:+.1f} points against the oracle before they "
        f"were forgotten, and {100 * left:+.1f} ± {100 * half:.1f} afterwards"
    )
    sentence += f"; {100 * (margin + half):.1f} points would have been flagged." if passed else ": they are remembered."
    figures = {"before": stood_out, "difference": left, "half": half, "margin": margin, "records": count}
    return [Verdict("vulnerable", "The most vulnerable records are forgotten as well", passed, sentence, figures)]


def subgroups(trials: Sequence[Trial]) -> list[Verdict]:
    """Judge classes, hospitals and the rarest records by themselves; nothing where all of these are too few."""
    known = _known(trials)
    names = sorted({name for trial in trials for name in trial.groups})
    masks = {name: _mask(trials, name) for name in names}
    judged = [name for name in names if masks[name].sum() >= _FEWEST]
    if not judged:
        return []
    found = {}
    for name in judged:
        part = {state: values[masks[name]] for state, values in known.items()}
        difference, half = _mean(part["after"] - (part["oracle"] + part["other_oracle"]) / 2, len(judged))
        chance, chance_half = _mean(part["other_oracle"] - part["oracle"], len(judged))
        margin = max(PROBABILITY_MARGIN, abs(chance) + chance_half)
        found[name] = (abs(difference) - half - margin, difference, half, margin, int(masks[name].sum()))
    worst = max(found, key=lambda name: found[name][0])
    beyond, difference, half, margin, count = found[worst]
    passed = beyond <= 0
    sentence = (
        f"Of {len(judged)} groups, {worst} ({count} records) differs most: its labels get {100 * difference:+.1f} ± "
        f"{100 * half:.1f} points against oracles"
    )
    told = "is remembered" if difference > 0 else "is over-forgotten"
    sentence += f", within the {100 * margin:.1f} points that are chance." if passed else f": it {told}."
    figures = {"difference": difference, "half": half, "margin": margin, "records": count, "groups": len(judged)}
    return [Verdict("subgroups", "No class, hospital or rare kind is left behind", passed, sentence, figures)]


def privacy_loss(trials: Sequence[Trial], attacks: Sequence[str], claimed: Claimed) -> list[Verdict]:
    """Hold the largest privacy loss that an attack's guesses prove against the one that is claimed."""
    tests = len(trials) * len(attacks)
    if not tests:
        return []
    scores = {name: [trial.scores[name]["after"] for trial in trials] for name in attacks}
    bounds = {
        name: max(empirical_epsilon(one, claimed.delta, tests=tests) for one in some) for name, some in scores.items()
    }
    count = max(min(len(one.members), len(one.others)) for some in scores.values() for one in some)
    proved, most = max(bounds.values()), most_provable(count, claimed.delta, tests=tests)
    passed = proved <= claimed.epsilon
    sentence = (
        f"With {CONFIDENCE:.0%} confidence the attacks prove a privacy loss of {proved:.2f} at least, and "
        f"{claimed.epsilon:.2f} at most is claimed"
    )
    if not passed:
        sentence += ": what is claimed does not hold."
    else:
        sentence += f"; of {count} records, an attack that never errs would prove {most:.2f}"
        sentence += "." if most > claimed.epsilon else ", so only more forgotten records could refute the claim."
    figures = {"proved": proved, "claimed": claimed.epsilon, "most": most, "records": count}
    return [Verdict("epsilon", "No attack proves more privacy loss than is claimed", passed, sentence, figures)]


def _stand_out(known: dict[str, Numbers], count: int) -> NDArray[np.int64]:
    """Return so many records of which the federation knew more, and an oracle less, than of any others."""
    return np.argsort(known["other_oracle"] - known["before"], kind="stable")[:count]


def _known(trials: Sequence[Trial], of: str = "forget_confidence") -> dict[str, Numbers]:
    return {
        state: np.concatenate([np.empty(0), *(getattr(trial.known[state], of) for trial in trials)])
        for state in ("before", "after", "oracle", "other_oracle")
    }


def _mask(trials: Sequence[Trial], name: str) -> NDArray[np.bool_]:
    parts = []
    for trial in trials:
        count = len(trial.known["after"].forget_confidence)
        parts.append(trial.groups.get(name, np.zeros(count, dtype=np.bool_)))
    return np.concatenate(parts)


def _mean(values: Numbers, tests: int) -> tuple[float, float]:
    """Return a mean and half its interval by Student's t, where so many of them share `LEVEL`: groups are small."""
    # Few commands judge, and it takes long to import.
    from scipy.stats import t

    quantile = float(t.ppf(1 - LEVEL / 2 / tests, len(values) - 1))
    return float(values.mean()), float(quantile * values.std(ddof=1) / math.sqrt(len(values)))
