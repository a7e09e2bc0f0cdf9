"""The page loads nothing, escapes everything, and is the same for the same document."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from fedmunkey.simulations.reporting.html import render_html

ATTACK = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Collects elements, what they would load, and the text of each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.loads: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action") and value]

    def handle_data(self, data: str) -> None:
        if self.elements:
            self.texts.setdefault(self.elements[-1], []).append(data.strip())


def test_page_loads_nothing(document: dict[str, Any]) -> None:
    text = render_html(document)

    assert all(load.startswith("#") or load == "data:," for load in Page(text).loads)
    assert re.findall(r"https?://|url\((?!#)|@import", text) == []
    assert "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:" in text


def poison(value: Any, keep: frozenset[str] = frozenset({"kind", "better", "written"})) -> Any:
    """Put a script into every text of a document, also into names of settings and figures."""
    if isinstance(value, dict):
        return {name: item if name in keep else poison(item) for name, item in value.items()}
    if isinstance(value, list):
        return [poison(item) for item in value]
    return value + ATTACK if isinstance(value, str) else value


def test_script_in_any_text_is_shown_and_not_run(document: dict[str, Any]) -> None:
    harmless = Page(render_html(document)).elements
    guarantee = copy.deepcopy(document.get("guarantee", {}))
    columns = [column["name"] for column in document.get("columns", [])]
    broken = poison(document)
    broken["settings"] = {f"{name}{ATTACK}": value for name, value in broken["settings"].items()}
    if guarantee:
        broken["guarantee"] = {**guarantee, "remains": ATTACK}
    for column, name in zip(broken.get("columns", []), columns, strict=True):
        column["name"] = name

    text = render_html(broken)

    assert ATTACK not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert Page(text).elements.count("script") == harmless.count("script") == 1


def test_audit_shows_its_verdict_and_figures(audit: dict[str, Any]) -> None:
    page = Page(render_html(audit))
    shown = [text for texts in page.texts.values() for text in texts]

    assert page.texts["title"][0] == "Audit of breastmnist: flagged"
    titles = {verdict["title"] for verdict in audit["verdicts"]}
    assert {audit["headline"]["sentence"], audit["command"], *titles, *audit["limits"]} <= set(shown)
    assert any("at most 95.3% sure" in text for text in shown)
    assert page.elements.count("figure") == 2 + len(audit["attacks"]) + 3


def test_audit_with_little_to_show_is_rendered(audit: dict[str, Any]) -> None:
    nothing = {"mean": None, "half": None, "values": [None]}
    audit |= {"rounds": [], "marks": [], "after_deletions": [], "attacks": [], "measures": [], "verdicts": []}
    audit["confidence"] = {state: [] for state in audit["confidence"]}
    audit["cost"] = {"forget_seconds": nothing, "retrain_seconds": nothing, "forget_bytes": 0, "retrain_bytes": 0}
    audit["guarantee"] |= {"epsilon": "inf", "delta": None, "identical": True}

    text = render_html(audit)

    assert Page(text).elements.count("figure") == 2
    assert "nothing is bounded" in text


def test_audit_with_one_state_and_one_round_is_rendered(audit: dict[str, Any]) -> None:
    for attack in audit["attacks"]:
        attack["states"] = {"after": attack["states"]["after"]}
        attack["states"]["after"]["curve"] = {"false": [0.0, 0.0, 1.0], "true": [0.0, 1.0, 1.0]}
    audit["rounds"] = audit["rounds"][:1]
    audit["after_deletions"] = audit["after_deletions"][:1]

    assert Page(render_html(audit)).elements.count("figure") == 2 + len(audit["attacks"]) + 3


def test_run_shows_what_was_learned_and_forgotten(run: dict[str, Any]) -> None:
    page = Page(render_html(run))
    shown = [text for texts in page.texts.values() for text in texts]

    assert page.texts["title"][0] == "Run on digits: 95.2% test accuracy"
    assert {run["headline"]["sentence"], run["command"], *run["limits"]} <= set(shown)
    assert {"records:5%@3", "epsilon 2.91 for 1 record", "3,000x", "zero: 40, one: 409"} <= set(shown)
    assert "Average Gap to the oracle at the end: 0.8 points." in shown
    assert any("at most 94.8% sure" in text for text in shown)
    assert page.elements.count("figure") == 2


def test_run_with_little_to_show_is_rendered(run: dict[str, Any]) -> None:
    run |= {"deletions": [], "baselines": {}, "confidence": {state: [] for state in run["confidence"]}}
    run["guarantee"] |= {"privacy_loss": {"epsilon": None, "delta": 1e-5, "records": 1}}
    run["final"] |= {"average_gap": None, "test_accuracy": None}
    for event in run["rounds"]:
        event |= {"evaluation": {}, "mean": {}}

    text = render_html(run)

    assert Page(text).elements.count("figure") == 0
    assert "nothing is bounded" in text
    assert 'id="forgetting"' not in text


@pytest.mark.parametrize("finished", [0, 4])
def test_comparison_that_is_not_complete_says_so(comparison: dict[str, Any], finished: int) -> None:
    comparison["finished"] = finished
    if not finished:
        comparison["results"] = []

    assert f"{finished} of 9 trials are in it" in render_html(comparison)


def test_best_method_that_does_not_retrain_is_marked(comparison: dict[str, Any]) -> None:
    text = render_html(comparison)

    assert re.findall(r'class="number best" data-value="0\.0">([^<]*)<', text) == ["0.00 ± 0.00"] * 3


def test_every_setting_that_was_searched_is_shown_and_the_chosen_one_marked(comparison: dict[str, Any]) -> None:
    page = render_html(comparison)

    assert "<strong>rate = 1</strong>" in page
    assert "learning-rate = 0.005" in page
    del comparison["searched"]
    assert "Settings searched" not in render_html(comparison)
