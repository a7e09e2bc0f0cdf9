"""The page of a report: one file that loads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from simulations.reporting import best, numerals, plain_words
from simulations.reporting.charts.confidence import draw_confidence
from simulations.reporting.charts.cost import draw_cost
from simulations.reporting.charts.measures import draw_measures
from simulations.reporting.charts.roc import draw_roc
from simulations.reporting.charts.rounds import draw_deletions, draw_rounds
from simulations.reporting.charts.tradeoff import draw_tradeoff

_TEMPLATES = Path(__file__).with_name("templates")


def render_html(document: Mapping[str, Any]) -> str:
    """Return the page of a valid document; the same document gives the same page."""
    audit = document["kind"] == "audit"
    charts = _audit_charts(document) if audit else _comparison_charts(document)
    page = _environment().get_template(f"{document['kind']}.html")
    return page.render(report=document, charts=charts) + "\n"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = {name: getattr(numerals, name) for name in ("decimals", "figure", "share", "seconds", "size", "plain")}
    environment.filters |= {**formats, "spread": numerals.interval}
    environment.globals |= {
        "words": plain_words.WORDS,
        "guarantee_words": plain_words.guarantee_words,
        "epsilon_words": plain_words.epsilon_words,
        "identical_words": plain_words.identical_words,
        "times": numerals.times,
        "best_methods": best.best_methods,
    }
    return environment


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
