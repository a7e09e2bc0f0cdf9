"""What the trials of an audit come to: each verdict passes or is flagged, and says why in plain words.

A difference to the oracle is flagged only if it cannot be chance: if its 95% interval lies beyond a margin that two
oracles, which never saw the records, differ by as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.simulations.attacks.attack import Scores
from fedmunkey.simulations.attacks.registry import ATTACKS
from fedmunkey.simulations.audit.closer_look import Claimed, most_vulnerable, privacy_loss, subgroups
from fedmunkey.simulations.audit.record_verdicts import Verdict, paired, z_of
from fedmunkey.simulations.audit.trial import Trial

UNJUDGED = frozenset({"differencing"})
"""Attacks that no federation can withstand which truly revokes access."""

GUESSING = frozenset({"loss-threshold", "weights-only", "label-only", "likelihood-ratio", "relative-likelihood"})
"""Attacks whose scores guess of each forgotten and each held-out record whether it was in."""

_OLDER_NAMES = {"weights-only": "weights"}
"""Of verdicts, where they are not those of their attacks."""

_AUROC_MARGIN = 0.05
_RECALL_MARGIN = 0.1


def judge(trials: Sequence[Trial], guarantee: Guarantee | None, claimed: Claimed | None = None) -> list[Verdict]:
    """Return every verdict that applies.

    There is at least one trial; `guarantee` is what the deletions claim, None for baselines. `claimed` is the privacy
    loss that is held against the attacks, where records were forgotten at random.
    """
    verdicts = [_oracle_is_clean(trials)]
    if all(trial.kept is not None for trial in trials):
        verdicts.append(_banks_are_clean(trials))
    if guarantee is Guarantee.EXACT:
        verdicts.append(_same_bytes(trials))
    names = attacks_of(trials)
    if names:
        asked = [name for name in names if ATTACKS[name].asked]
        verdicts.append(_confidences(trials, 1 + len(asked)))
        verdicts += [_asked(name, trials, 1 + len(asked)) for name in asked]
        verdicts += [*most_vulnerable(trials), *subgroups(trials)]
        if set(names) - UNJUDGED:
            verdicts.append(_attacks([name for name in names if name not in UNJUDGED], trials))
        if claimed is not None:
            verdicts += privacy_loss(trials, [name for name in names if name in GUESSING], claimed)
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


def attacks_of(trials: Sequence[Trial]) -> list[str]:
    """Return the attacks that could be made in every trial, in the order of reports."""
    return [name for name in trials[0].scores if all(name in trial.scores for trial in trials)]


def _confidences(trials: Sequence[Trial], tests: int) -> Verdict:
    """Compare what each forgotten record's label got, after deletion and from the oracle."""
    by_state = {
        name: np.concatenate([trial.known[name].forget_confidence for trial in trials])
        for name in ("after", "oracle", "other_oracle")
    }
    title = "As sure of forgotten records as the oracle"
    return paired("confidences", title, "The federation", by_state, tests=tests)


def _asked(name: str, trials: Sequence[Trial], tests: int) -> Verdict:
    """Compare what each record's label gets when an attack asks, after deletion and from the oracle."""
    by_state = {
        state: np.exp(np.concatenate([trial.scores[name][state].members for trial in trials]))
        for state in ("after", "oracle", "other_oracle")
    }
    attack = ATTACKS[name]
    return paired(_OLDER_NAMES.get(name, name), attack.holds, attack.asked, by_state, tests=tests)


def _attacks(names: Sequence[str], trials: Sequence[Trial]) -> Verdict:
    """Compare each attack's AUROC after deletion with its AUROC on the oracle; the worst one decides."""
    found = {}
    for name in names:
        by_state = trials[0].scores[name]
        auroc = {state: pooled_auroc([trial.scores[name][state] for trial in trials]) for state in by_state}
        half = z_of(len(names)) * _auroc_error([trial.scores[name]["after"] for trial in trials], auroc["after"])
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
    half = z_of(1) * math.sqrt(share * (1 - share) / (count + 4))
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
    for name in attacks_of(trials):
        by_state = trials[0].scores[name]
        if name not in UNJUDGED and {"before", "oracle"} <= by_state.keys():
            before, oracle = (pooled_auroc([t.scores[name][s] for t in trials]) for s in ("before", "oracle"))
            if before - oracle > _AUROC_MARGIN:
                return True
    return False


def pooled_auroc(scores: Sequence[Scores]) -> float:
    """Return the mean AUROC of several trials: scores of different federations cannot be ranked together."""
    return float(np.mean([one.auroc for one in scores]))


def _auroc_error(scores: Sequence[Scores], auroc: float) -> float:
    """Return the standard error of a mean AUROC (Hanley and McNeil 1982, Radiology 143, equation 1)."""
    members = len(scores[0].members)
    others = len(scores[0].others)
    both, one = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    spread = auroc * (1 - auroc) + (members - 1) * (both - auroc**2) + (others - 1) * (one - auroc**2)
    return math.sqrt(max(spread, 0.0) / (members * others) / len(scores))
