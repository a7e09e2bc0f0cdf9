"""The page of a report: one file that loads nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment

from fedmunkey.simulations.reporting.charts.confidence import draw_confidence
from fedmunkey.simulations.reporting.charts.cost import draw_cost
from fedmunkey.simulations.reporting.charts.drawing import Chart
from fedmunkey.simulations.reporting.charts.measures import draw_measures
from fedmunkey.simulations.reporting.charts.roc import draw_roc
from fedmunkey.simulations.reporting.charts.rounds import Series, draw_deletions, draw_rounds
from fedmunkey.simulations.reporting.charts.tradeoff import draw_tradeoff
from fedmunkey.simulations.reporting.many_hospitals import MOST_LISTED, QUANTILES, spread
from fedmunkey.simulations.reporting.templating import environment


def render_html(document: Mapping[str, Any]) -> str:
    """Return the page of a valid document; the same document gives the same page."""
    charts = _CHARTS[document["kind"]](document)
    page = _environment().get_template(f"{document['kind']}.html")
    return page.render(report=document, charts=charts) + "\n"


def run_charts(run: Mapping[str, Any]) -> dict[str, Chart]:
    """Return the drawings of a run that has anything to draw: its `accuracy`, and what was `forgotten`."""
    numbers = [event["number"] for event in run["rounds"]]
    hospitals = _hospital_curves(run, numbers)
    marks = [{"round": done["round"], "label": done["plan"]} for done in run["deletions"]]
    label = "each hospital" if len(hospitals) == len(run["hospitals"]) else "a tenth and nine tenths of hospitals"
    means = _curve(numbers, [event["mean"] for event in run["rounds"]])
    accuracy = draw_rounds(means, marks, hospitals, label=label)
    forgotten = draw_confidence(run["confidence"]) if run["deletions"] else None
    return {name: drawn for name, drawn in (("accuracy", accuracy), ("forgotten", forgotten)) if drawn is not None}


def _hospital_curves(run: Mapping[str, Any], numbers: Sequence[int]) -> dict[str, Series]:
    """Return a curve for each hospital, or of many those below which a tenth and nine tenths of them are."""
    found = {
        one["name"]: [event["evaluation"].get(one["name"], {}) for event in run["rounds"]] for one in run["hospitals"]
    }
    if len(found) > MOST_LISTED:
        rounds = [spread(one.get("test-accuracy") for one in event["evaluation"].values()) for event in run["rounds"]]
        tenths = {name: place for place, (name, share) in enumerate(QUANTILES) if share in (0.1, 0.9)}
        found = {f"{name} of hospitals": [{"test-accuracy": one[at]} for one in rounds] for name, at in tenths.items()}
    return {name: _curve(numbers, events) for name, events in found.items()}


def _curve(numbers: Sequence[int], found: Sequence[Mapping[str, Any]]) -> Series:
    values = [one.get("test-accuracy") for one in found]
    means = [None if value is None else 100 * value for value in values]
    return [(number, {"mean": mean, "half": None}) for number, mean in zip(numbers, means, strict=True)]


@cache
def _environment() -> Environment:
    return environment()


def _audit_charts(audit: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "measures": draw_measures(audit["measures"]),
        "confidence": draw_confidence(audit["confidence"]),
        "roc": [draw_roc(attack) for attack in audit["attacks"]],
        "rounds": draw_rounds([(one["round"], one["test_accuracy"]) for one in audit["rounds"]], audit["marks"]),
        "deletions": draw_deletions(audit["after_deletions"]),
        "cost": draw_cost(audit["cost"]),
    }


def _comparison_charts(comparison: Mapping[str, Any]) -> dict[str, Any]:
    drawn = {data["name"]: draw_tradeoff(comparison, data["name"]) for data in comparison["sets"]}
    return {"tradeoff": drawn}


_CHARTS: dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
    "run": run_charts,
    "audit": _audit_charts,
    "comparison": _comparison_charts,
}
