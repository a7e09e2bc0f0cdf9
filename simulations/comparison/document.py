"""A comparison as the JSON document that its report is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedmunkey.simulations.comparison.findings import SetFindings
from fedmunkey.simulations.comparison.jobs import Contest
from fedmunkey.simulations.comparison.presets import Preset
from fedmunkey.simulations.comparison.search import Searched
from fedmunkey.simulations.comparison.search_table import searched_document
from fedmunkey.simulations.forget_sets.question import describe_question
from fedmunkey.simulations.reporting.intervals import interval_document
from fedmunkey.simulations.reporting.preamble import SIMULATED, preamble
from fedmunkey.simulations.unlearning.method import Method

LIMITS = (
    SIMULATED,
    "Gaps are to oracles trained with the same first weights; figures of few forgotten records move in large steps.",
    "The attacks know confidences only. An attacker with the weights of every round could learn more.",
    "Settings are those of the papers or, where a search is shown, the best of a few on few validation records.",
    "Seconds are of one thread on a machine that ran other cells at the same time.",
)


def comparison_document(
    contests: Sequence[tuple[Contest, SetFindings]],
    preset: Preset,
    *,
    searched: Mapping[str, Sequence[Searched]],
    canaries: int,
    command: str,
    seeds: Sequence[int],
    cells: int,
) -> dict[str, Any]:
    """Return the document; `simulations/reporting/report.schema.json` says what each part means.

    The question is that of the first contest: the others differ in what follows from the data, and in how alike
    hospitals are and what is forgotten, where several are named. Canaries are counted in all contests together, for the
    first seed; `finished` and `total` are numbers of cells.
    """
    findings = [found for _, found in contests]
    question = contests[0][0].question
    described = [describe_question(contest.question) for contest, _ in contests]
    names = [name for name in preset.methods if any(name in found.methods for found in findings)]
    return {
        **preamble("comparison", command, question.settings),
        "question": {
            **described[0],
            "alpha": ", ".join(dict.fromkeys(one["alpha"] for one in described)),
            "forget_set": {
                "name": ", ".join(dict.fromkeys(one["forget_set"]["name"] for one in described)),
                "title": "; ".join(dict.fromkeys(one["forget_set"]["title"] for one in described)),
            },
            "canaries": canaries,
            "budget": question.budget.rounds,
            "seeds": list(seeds),
        },
        "headline": _headline(findings),
        "columns": [
            {"name": c.name, "title": c.title, "unit": c.unit, "better": c.better, "digits": c.digits}
            for c in preset.columns
        ],
        "methods": [_describe_method(preset.methods[name]) for name in names],
        "sets": [{**contest.encoded.describe(), "name": contest.label} for contest, _ in contests],
        "results": [
            {
                "data": found.data,
                "method": name,
                "figures": {c.name: interval_document(found.interval(name, c.name)) for c in preset.columns},
            }
            for found in findings
            for name in found.methods
        ],
        "searched": searched_document(searched, preset),
        "findings": [sentence for found in findings for sentence in found.sentences()],
        "limits": list(LIMITS),
        "finished": cells,
        "total": cells,
    }


def _headline(findings: Sequence[SetFindings]) -> dict[str, Any]:
    contested = [found for found in findings if found.contested]
    if not contested:
        return {"passed": True, "sentence": "No contest between MUNKEY and other ways to forget: see the findings."}
    won = [found.data for found in contested if found.won]
    if len(won) == len(contested):
        sentence = (
            "On every data set MUNKEY's best guarantee has the smallest Average Gap of all methods that do not "
            "retrain, within 1 point of the best test accuracy."
        )
    else:
        lost = ", ".join(found.data for found in contested if not found.won)
        sentence = f"MUNKEY's best guarantee does not win on {lost}: see the findings."
    return {"passed": len(won) == len(contested), "sentence": sentence}


def _describe_method(method: Method[Any]) -> dict[str, Any]:
    return {
        "name": method.name,
        "title": method.title,
        "family": method.family.name,
        "paper": method.paper,
        "needs_data": method.needs_data,
        "retrains": method.retrains,
    }
