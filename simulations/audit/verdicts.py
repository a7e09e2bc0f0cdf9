"""What the trials of an audit come to: each verdict passes or is flagged, and says why in plain words.

A difference to the oracle is flagged only if it cannot be chance: if its 95% interval lies beyond a margin that two
oracles, which never saw the records, differ by as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.simulations.attacks.attack import Scores
from fedmunkey.simulations.attacks.registry import ATTACKS
from fedmunkey.simulations.audit.trial import Trial

UNJUDGED = frozenset({"differencing"})
"""Attacks that no federation can withstand which truly revokes access."""

_Z = 1.959964
_PROBABILITY_MARGIN = 0.02
_AUROC_MARGIN = 0.05
_RECALL_MARGIN = 0.1


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


def judge(trials: Sequence[Trial], guarantee: Guarantee | None) -> list[Verdict]:
    """Return every verdict that applies.

    There is at least one trial; `guarantee` is what the deletions claim, None for baselines.
    """
    verdicts = [_oracle_is_clean(trials)]
    if all(trial.kept is not None for trial in trials):
        verdicts.append(_banks_are_clean(trials))
    if guarantee is Guarantee.EXACT:
        verdicts.append(_same_bytes(trials))
    if trials[0].scores:
        verdicts += [_confidences(trials), _weights(trials), _attacks(trials)]
    if any(trial.canaries for trial in trials):
        verdicts.append(_canaries(trials))
    return verdicts


def _oracle_is_clean(trials: Sequence[Trial]) -> Verdict:
    seen = sum(trial.seen for trial in trials)
    sentence = "No oracle was trained on a forgotten record, under whatever id."
    if seen:
        sentence = (
            f"The oracle learned from {seen} forgotten records, so nothing that is compared with it can be believed."
        )
    return Verdict("oracle", "The oracle never saw the records", not seen, sentence, {"seen": seen})


def _banks_are_clean(trials: Sequence[Trial]) -> Verdict:
    kept = sum(trial.kept or 0 for trial in trials)
    sentence = "No bank holds the key of a forgotten record."
    if kept:
        sentence = f"Banks still hold the keys of {kept} forgotten records."
    return Verdict("banks", "No bank kept an entry", not kept, sentence, {"kept": kept})


def _same_bytes(trials: Sequence[Trial]) -> Verdict:
    same = all(trial.identical for trial in trials)
    sentence = "Shared weights, keys and exemplar tokens have the same bytes as if the records had never been there."
    if not same:
        sentence = "The state differs from one that was built without the records, which exact does not allow."
    return Verdict("bytes", "Same bytes as the oracle", same, sentence)


def _confidences(trials: Sequence[Trial]) -> Verdict:
    """Compare what each forgotten record's label got, after deletion and from the oracle."""
    by_state = {
        name: np.concatenate([trial.known[name].forget_confidence for trial in trials])
        for name in ("after", "oracle", "other_oracle")
    }
    return _paired("confidences", "As sure of forgotten records as the oracle", "The federation", by_state)


def _weights(trials: Sequence[Trial]) -> Verdict:
    by_state = {
        name: np.exp(np.concatenate([trial.scores["weights-only"][name].members for trial in trials]))
        for name in ("after", "oracle", "other_oracle")
    }
    return _paired(
        "weights",
        "The shared weights alone know no more than the oracle's",
        "Asked without its banks, the federation",
        by_state,
    )


def _paired(name: str, title: str, who: str, by_state: dict[str, NDArray[np.float64]]) -> Verdict:
    """Judge the mean difference of n records' probabilities to those of two oracles, record by record."""
    after, after_half = _mean(by_state["after"] - (by_state["oracle"] + by_state["other_oracle"]) / 2)
    chance, _ = _mean(by_state["other_oracle"] - by_state["oracle"])
    margin = max(_PROBABILITY_MARGIN, abs(chance))
    figures = {"difference": after, "half": after_half, "margin": margin}
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
            f"oracles, within the {100 * margin:.1f} points that are chance."
        )
        return Verdict(name, title, True, sentence, figures)
    return Verdict(name, title, False, sentence, figures)


def _attacks(trials: Sequence[Trial]) -> Verdict:
    """Compare each attack's AUROC after deletion with its AUROC on the oracle; the worst one decides."""
    found = {}
    for name, by_state in trials[0].scores.items():
        if name in UNJUDGED:
            continue
        auroc = {state: pooled_auroc([trial.scores[name][state] for trial in trials]) for state in by_state}
        half = _Z * _auroc_error([trial.scores[name]["after"] for trial in trials], auroc["after"])
        margin = _AUROC_MARGIN + abs(auroc["other_oracle"] - auroc["oracle"])
        found[name] = (auroc["after"] - auroc["oracle"], half, margin, auroc["after"], auroc["oracle"])
    worst = max(found, key=lambda name: abs(found[name][0]) - found[name][1] - found[name][2])
    difference, half, margin, after, oracle = found[worst]
    figures = {"after": after, "oracle": oracle, "half": half, "margin": margin}
    title = "No attack finds out more than it does of the oracle"
    compared = f"The {ATTACKS[worst].title} attack has an AUROC of {after:.3f}, and {oracle:.3f} on the oracle"
    if difference - half > margin:
        return Verdict("attacks", title, False, f"{compared}: forgotten records can be told.", figures)
    if difference + half < -margin:
        sentence = f"{compared}: over-forgotten records can be told by what is missing."
        return Verdict("attacks", title, False, sentence, figures)
    return Verdict(
        "attacks", title, True, f"{compared}, the largest difference of all attacks, and within chance.", figures
    )


def _canaries(trials: Sequence[Trial]) -> Verdict:
    """Compare how often the wrong labels of forgotten canaries are given."""
    recall = {
        state: float(np.nanmean([trial.known[state].canary_recall for trial in trials])) / 100
        for state in ("before", "after", "oracle", "other_oracle")
    }
    count = sum(trial.canaries for trial in trials)
    # Agresti and Coull 1998: without the added trials, an interval around 0 or 1 would have no width.
    share = (recall["after"] * count + 2) / (count + 4)
    half = _Z * math.sqrt(share * (1 - share) / (count + 4))
    margin = _RECALL_MARGIN + abs(recall["other_oracle"] - recall["oracle"])
    passed = recall["after"] - recall["oracle"] - half <= margin
    sentence = (
        f"{100 * recall['after']:.0f}% of the forgotten canaries get their wrong label, {100 * recall['before']:.0f}% "
        f"before they were forgotten, {100 * recall['oracle']:.0f}% from the oracle"
    )
    sentence += "." if passed else ": the federation still reproduces what it was told to forget."
    return Verdict("canaries", "Wrong labels are gone", passed, sentence, {**recall, "half": half, "margin": margin})


def has_power(trials: Sequence[Trial]) -> bool:
    """Return whether forgotten records, or canaries, could be told before they were forgotten.

    Where they could not, silence afterwards says little.
    """
    if any(trial.canaries for trial in trials):
        recalled = [
            np.nanmean([trial.known[state].canary_recall for trial in trials]) for state in ("before", "oracle")
        ]
        if recalled[0] - recalled[1] > 100 * _RECALL_MARGIN:
            return True
    for name, by_state in trials[0].scores.items():
        if name not in UNJUDGED and {"before", "oracle"} <= by_state.keys():
            before, oracle = (pooled_auroc([t.scores[name][s] for t in trials]) for s in ("before", "oracle"))
            if before - oracle > _AUROC_MARGIN:
                return True
    return False


def pooled_auroc(scores: Sequence[Scores]) -> float:
    """Return the mean AUROC of several trials: scores of different federations cannot be ranked together."""
    return float(np.mean([one.auroc for one in scores]))


def _mean(differences: NDArray[np.float64]) -> tuple[float, float]:
    """Return a mean, and half of its 95% interval."""
    half = _Z * differences.std(ddof=1) / math.sqrt(len(differences)) if len(differences) > 1 else math.inf
    return float(differences.mean()), float(half)


def _auroc_error(scores: Sequence[Scores], auroc: float) -> float:
    """Return the standard error of a mean AUROC (Hanley and McNeil 1982, Radiology 143, equation 1)."""
    members = len(scores[0].members)
    others = len(scores[0].others)
    both, one = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    spread = auroc * (1 - auroc) + (members - 1) * (both - auroc**2) + (others - 1) * (one - auroc**2)
    return math.sqrt(max(spread, 0.0) / (members * others) / len(scores))
