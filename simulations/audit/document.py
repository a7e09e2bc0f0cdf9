"""An audit as the JSON document that its report is made from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.programs.command_line import finite
from fedmunkey.simulations.attacks.registry import ATTACKS
from fedmunkey.simulations.audit.closer_look import AT_RANDOM, Claimed
from fedmunkey.simulations.audit.record_verdicts import Verdict
from fedmunkey.simulations.audit.trial import Trial
from fedmunkey.simulations.audit.verdicts import UNJUDGED, attacks_of, has_power, judge
from fedmunkey.simulations.federation.encoded_set import EncodedSet
from fedmunkey.simulations.federation.measurement import Measurement
from fedmunkey.simulations.forget_sets.question import Question, describe_question
from fedmunkey.simulations.reporting.intervals import Interval, interval_document
from fedmunkey.simulations.reporting.preamble import SIMULATED, preamble
from fedmunkey.simulations.unlearning.munkey import epsilon_of_settings
from fedmunkey.simulations.unlearning.registry import METHODS

_POINTS = 200
"""Of a ROC curve, at most."""

_MEASURES: tuple[tuple[str, str, Callable[[Measurement], float]], ...] = (
    ("TA", "test accuracy", lambda known: known.test_accuracy),
    ("RA", "accuracy on records that stay", lambda known: known.retain_accuracy),
    ("FA", "accuracy on forgotten records", lambda known: known.forget_accuracy),
    ("MIA", "AUROC of the loss attack", lambda known: known.membership),
    ("TPR", "true positives of the loss attack at 1% false positives", lambda known: known.membership_tpr),
    ("weights", "AUROC of the loss attack on the shared weights alone", lambda known: known.weights_membership),
    ("canaries", "forgotten canaries that get their wrong label", lambda known: known.canary_recall),
)

LIMITS = (
    SIMULATED,
    "A passed audit means that these attacks found nothing, on this data set, with these seeds. It is no proof; what "
    "is proved is said under the guarantee.",
    "The attacks ask for probabilities. Someone with the shared weights of every round could learn more.",
    "A hospital that lies about its own erasure is not found by asking the federation.",
    "Who may ask before and after a deletion can tell who left, whatever the method; see before/after differencing.",
)
_NO_POWER = (
    "Before deletion, too, the attacks could hardly tell these records: this federation memorises little, and the "
    "attacks' silence afterwards says no more than that."
)


def audit_document(
    encoded: EncodedSet,
    question: Question,
    method: str,
    shadows: int,
    trials: Sequence[Trial],
    *,
    command: str,
) -> dict[str, Any]:
    """Return the document; `simulations/reporting/report.schema.json` says what each part means."""
    guarantee = getattr(METHODS[method].family, "guarantee", None)
    claimed = None
    if guarantee is Guarantee.CERTIFIED and question.forget_set in AT_RANDOM:
        settings = question.settings.replace(guarantee=guarantee.value)
        claimed = Claimed(epsilon_of_settings(settings), settings.delta)
    verdicts = judge(trials, guarantee, claimed)
    first = trials[0]
    return {
        **preamble("audit", command, question.settings),
        "data": encoded.describe(),
        "question": {
            **describe_question(question),
            "guarantee": guarantee.value if guarantee else "none",
            "method": method,
            "forgotten": first.forgotten,
            "deletions": first.deletions,
            "canaries": first.canaries,
            "seeds": [trial.seed for trial in trials],
            "shadows": shadows,
        },
        "headline": _headline(verdicts, trials),
        "guarantee": _guarantee(guarantee, question, trials),
        "verdicts": [
            {**asdict(one), "figures": {name: finite(value) for name, value in one.figures.items()}} for one in verdicts
        ],
        "measures": [*(_measure(*row, trials) for row in _MEASURES), _average_gap(trials)],
        "attacks": [_attack(name, trials) for name in attacks_of(trials)],
        "confidence": {
            **{
                state: [value for trial in trials for value in trial.known[state].forget_confidence]
                for state in ("before", "after", "oracle")
            },
            "test": [value for trial in trials for value in trial.known["after"].test_confidence],
        },
        "rounds": [
            {"round": number, "test_accuracy": _interval([trial.rounds[number - 1] for trial in trials])}
            for number in range(1, min(len(trial.rounds) for trial in trials) + 1)
        ],
        "marks": [
            {"round": len(first.rounds) + number, "label": f"deletion {number}" if first.deletions > 1 else "deletion"}
            for number in range(1, first.deletions + 1)
        ],
        "after_deletions": [
            {
                "deletion": number,
                "test_accuracy": _interval([trial.steps[number - 1].test_accuracy for trial in trials]),
                "forget_accuracy": _interval([trial.steps[number - 1].forget_accuracy for trial in trials]),
                "first_forget_accuracy": _interval([trial.steps[number - 1].first_forget_accuracy for trial in trials]),
            }
            for number in range(1, len(first.steps) + 1)
        ],
        "cost": {
            "forget_seconds": _interval([trial.forget_seconds for trial in trials]),
            "retrain_seconds": _interval([trial.retrain_seconds for trial in trials]),
            "forget_bytes": first.forget_bytes,
            "retrain_bytes": first.retrain_bytes,
        },
        "limits": [*LIMITS, *([] if has_power(trials) else [_NO_POWER])],
    }


def _headline(verdicts: Sequence[Verdict], trials: Sequence[Trial]) -> dict[str, Any]:
    flagged = [verdict for verdict in verdicts if not verdict.passed]
    count = trials[0].forgotten
    if not flagged:
        sentence = (
            f"Nothing was found that tells this federation from one that never saw the {count} forgotten records."
        )
    else:
        sentence = " ".join(verdict.sentence for verdict in flagged[:2])
    return {"passed": not flagged, "sentence": sentence}


def _guarantee(guarantee: Guarantee | None, question: Question, trials: Sequence[Trial]) -> dict[str, Any]:
    claimed = guarantee or Guarantee.EMPIRICAL
    settings = question.settings.replace(guarantee=claimed.value)
    epsilon = epsilon_of_settings(settings)
    identical = [trial.identical for trial in trials]
    return {
        "name": claimed.value,
        "remains": claimed.remains,
        "epsilon": "inf" if math.isinf(epsilon) else epsilon,
        "delta": settings.delta if claimed is Guarantee.CERTIFIED else None,
        "identical": None if None in identical else all(identical),
    }


def _measure(name: str, title: str, of: Callable[[Measurement], float], trials: Sequence[Trial]) -> dict[str, Any]:
    by_state = {
        state: [of(trial.known[state]) for trial in trials] for state in ("before", "after", "oracle", "other_oracle")
    }
    gap = np.abs(np.subtract(by_state["after"], by_state["oracle"]))
    chance = np.abs(np.subtract(by_state["other_oracle"], by_state["oracle"]))
    return {
        "name": name,
        "title": title,
        "unit": "%",
        **{state: _interval(values) for state, values in by_state.items()},
        "gap": _interval(gap.tolist()),
        "chance": _interval(chance.tolist()),
    }


def _average_gap(trials: Sequence[Trial]) -> dict[str, Any]:
    return {
        "name": "Average Gap",
        "title": "mean difference of TA, RA, FA and MIA to the oracle",
        "unit": "points",
        "gap": _interval([trial.known["after"].gap(trial.known["oracle"]) for trial in trials]),
        "chance": _interval([trial.known["other_oracle"].gap(trial.known["oracle"]) for trial in trials]),
    }


def _attack(name: str, trials: Sequence[Trial]) -> dict[str, Any]:
    attack = ATTACKS[name]
    states = [state for state in ("before", "after", "oracle") if state in trials[0].scores[name]]
    return {
        "name": name,
        "title": attack.title,
        "question": attack.question,
        "paper": attack.paper,
        "judged": name not in UNJUDGED,
        "states": {state: _attacked(name, state, trials) for state in states},
    }


def _attacked(name: str, state: str, trials: Sequence[Trial]) -> dict[str, Any]:
    scores = [trial.scores[name][state] for trial in trials]
    # Curves of different federations are averaged at the same false positives (Fawcett 2006, algorithm 4).
    grid = np.unique(np.concatenate([[0.0], np.geomspace(1e-3, 1, _POINTS - 1)]))
    curves = []
    for one in scores:
        false, true = one.curve()
        last = np.searchsorted(false, grid, side="right") - 1
        curves.append(true[last])
    return {
        "auroc": _interval([one.auroc for one in scores]),
        "true_positives": _interval([one.true_positives for one in scores]),
        "curve": {"false": grid.tolist(), "true": np.mean(curves, axis=0).tolist()},
    }


def _interval(values: Sequence[float]) -> dict[str, Any]:
    return interval_document(Interval.of(values))
