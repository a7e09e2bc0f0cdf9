"""A comparison as the JSON document that its report is made from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from common.model_choice import choose_shape
from simulations.comparison.findings import COLUMNS, SetFindings
from simulations.encoded_set import EncodedSet
from simulations.forget_sets.registry import FORGET_SETS
from simulations.guarantee_table import Interval
from simulations.question import Question
from simulations.reporting.preamble import SIMULATED, preamble
from simulations.unlearning.registry import METHODS

LIMITS = (
    SIMULATED,
    "Gaps are to oracles trained with the same first weights; figures of few forgotten records move in large steps.",
    "The attacks know confidences only. An attacker with the weights of every round could learn more.",
    "Baselines have the settings that their papers give, not the best ones for each data set; so has MUNKEY.",
    "Seconds are of one thread on a machine that ran other cells at the same time.",
)


def comparison_document(
    sets: Sequence[tuple[EncodedSet, SetFindings]],
    question: Question,
    *,
    canaries: int,
    command: str,
    seeds: Sequence[int],
    finished: int,
    total: int,
) -> dict[str, Any]:
    """Return the document; `simulations/reporting/report.schema.json` says what each part means.

    Parameters
    ----------
    sets : sequence
        Each data set with what was found on it.
    question : Question
        Of the first data set; the others differ in what follows from the data.
    canaries : int
        How many forgotten records had a wrong label, on all data sets together, for the first seed.
    command : str
        As it was typed.
    seeds : sequence of int
        All of them.
    finished, total : int
        Cells.
    """
    findings = [found for _, found in sets]
    forget_set = FORGET_SETS[question.forget_set](question.settings, choose_shape(question.settings))
    names = [name for name in METHODS if any(name in found.methods for found in findings)]
    return {
        **preamble("comparison", command, question.settings),
        "question": {
            "hospitals": question.hospitals,
            "alpha": str(question.alpha),
            "forget": question.forget,
            "permanent": question.permanent,
            "forget_set": {"name": forget_set.name, "title": forget_set.title},
            "canaries": canaries,
            "budget": question.budget.rounds,
            "seeds": list(seeds),
        },
        "headline": _headline(findings),
        "columns": [
            {"name": c.name, "title": c.title, "unit": c.unit, "better": c.better, "digits": c.digits} for c in COLUMNS
        ],
        "methods": [_describe_method(name) for name in names],
        "sets": [encoded.describe() for encoded, _ in sets],
        "results": [
            {
                "data": found.data,
                "method": name,
                "figures": {c.name: interval_document(found.interval(name, c.name)) for c in COLUMNS},
            }
            for found in findings
            for name in found.methods
        ],
        "findings": [sentence for found in findings for sentence in found.sentences()],
        "limits": list(LIMITS),
        "finished": finished,
        "total": total,
    }


def interval_document(interval: Interval) -> dict[str, Any]:
    """Return a mean, half its interval and the values behind it; None where a number is not known."""
    return {
        "mean": _known(interval.mean),
        "half": _known(interval.half),
        "values": [_known(value) for value in interval.values],
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _headline(findings: Sequence[SetFindings]) -> dict[str, Any]:
    won = [found.data for found in findings if found.won]
    if len(won) == len(findings):
        sentence = (
            "On every data set MUNKEY's best guarantee has the smallest Average Gap of all methods that do not "
            "retrain, within 1 point of the best test accuracy."
        )
    else:
        lost = ", ".join(found.data for found in findings if not found.won)
        sentence = f"MUNKEY's best guarantee does not win on {lost}: see the findings."
    return {"passed": len(won) == len(findings), "sentence": sentence}


def _describe_method(name: str) -> dict[str, Any]:
    method = METHODS[name]
    return {
        "name": name,
        "title": method.title,
        "family": method.family.name,
        "paper": method.paper,
        "needs_data": method.needs_data,
        "retrains": method.retrains,
    }
