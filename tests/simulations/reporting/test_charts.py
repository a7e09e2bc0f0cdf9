"""Drawings put things where the numbers say, keep labels apart, and are drawn from whatever is known."""

from __future__ import annotations

import math
import re
from itertools import combinations
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import pytest

from fedmunkey.simulations.reporting.charts.cost import draw_cost
from fedmunkey.simulations.reporting.charts.drawing import Chart
from fedmunkey.simulations.reporting.charts.labels import Box, place_labels
from fedmunkey.simulations.reporting.charts.measures import draw_measures
from fedmunkey.simulations.reporting.charts.roc import draw_roc
from fedmunkey.simulations.reporting.charts.rounds import draw_deletions, draw_rounds
from fedmunkey.simulations.reporting.charts.scales import Scale, decade_above, decade_below, decades, round_ticks
from fedmunkey.simulations.reporting.charts.tradeoff import draw_tradeoff


def elements(chart: Chart | None, tag: str, style: str) -> list[Element]:
    assert chart is not None
    return [one for one in fromstring(chart.svg).iter(tag) if style in one.get("class", "")]  # noqa: S314


def points(chart: Chart, style: str) -> list[tuple[float, float]]:
    (path,) = elements(chart, "path", style)
    pairs = re.findall(r"([\d.]+) ([\d.]+)", path.get("d", ""))
    return [(float(x), float(y)) for x, y in pairs]


def value(mean: float | None, half: float | None = None) -> dict[str, Any]:
    return {"mean": mean, "half": half, "values": [mean]}


def test_scale_maps_its_ends_and_keeps_what_lies_outside_on_them() -> None:
    scale = Scale(0.01, 1, 300, 100, math.log10)

    assert [scale(number) for number in (0.01, 0.1, 1)] == pytest.approx([300, 200, 100])
    assert (scale(0), scale(7)) == (300, 100)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(65, 90, [65, 70, 75, 80, 85, 90]), (0.5, 3.5, [1, 2, 3]), (82.1, 83.2, [82.2, 82.4, 82.6, 82.8, 83, 83.2])],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    found = round_ticks(low, high)

    assert len(found) <= 6
    assert [number for number in expected if number in found] == found


def test_decades_are_powers_of_ten() -> None:
    assert decades(0.001, 1) == pytest.approx([0.001, 0.01, 0.1, 1])
    assert (decade_below(0.02), decade_above(0.02), decade_below(1000), decade_above(1000)) == (0.01, 0.1, 1000, 1000)


def test_labels_hide_neither_each_other_nor_points() -> None:
    crowd = [((100 + 9.0 * (number % 4), 100 + 9.0 * (number // 4)), f"method-{number}") for number in range(12)]
    frame = Box(0, 0, 400, 300)

    placed = place_labels(crowd, frame)

    assert [label.words for label in placed] == [words for _, words in crowd]
    assert all(one.box.overlap(other.box) == 0 for one, other in combinations(placed, 2))
    dots = [Box(x - 4, y - 4, x + 4, y + 4) for (x, y), _ in crowd]
    assert all(label.box.overlap(dot) == 0 for label in placed for dot in dots)
    assert any(label.far for label in placed)


def test_guessing_lies_on_the_line_of_chance() -> None:
    even = {"auroc": value(0.5), "true_positives": value(0.01), "curve": {"false": [0, 1], "true": [0, 1]}}
    attack = {"name": "a", "title": "A", "question": "?", "paper": "", "judged": True, "states": {"after": even}}

    chart = draw_roc(attack)
    (chance,) = elements(chart, "line", "chance")
    start, end = [(float(chance.get(f"x{n}", "")), float(chance.get(f"y{n}", ""))) for n in (1, 2)]

    for x, y in points(chart, "curve after"):
        along = (x - start[0]) / (end[0] - start[0])
        assert y == pytest.approx(start[1] + along * (end[1] - start[1]), abs=0.2)


def test_right_attack_reaches_the_top_at_once() -> None:
    right = {"auroc": value(1), "true_positives": value(1), "curve": {"false": [0, 0, 1], "true": [0, 1, 1]}}
    attack = {"name": "a", "title": "A", "question": "?", "paper": "", "judged": True, "states": {"after": right}}

    (x1, y1), (x2, y2), (x3, y3) = points(draw_roc(attack), "curve after")

    assert x1 == x2 < x3
    assert y1 > y2 == y3


def test_rounds_without_a_known_accuracy_are_not_drawn() -> None:
    unknown = [{"round": 1, "test_accuracy": value(None)}]

    assert draw_rounds(unknown, []) is None
    assert draw_deletions([]) is None
    assert draw_measures([]) is None


def test_deletion_is_marked_between_its_rounds() -> None:
    rounds = [{"round": number, "test_accuracy": value(80 + number, 1)} for number in (1, 2, 3)]

    chart = draw_rounds(rounds, [{"round": 3, "label": "5 <records>"}])

    (mark,) = elements(chart, "line", "mark")
    dots = [float(dot.get("cx", "")) for dot in elements(chart, "circle", "point")]
    assert dots[1] < float(mark.get("x1", "")) < dots[2]
    assert elements(chart, "text", "mark-label")[0].text == "5 <records>"


def test_costs_of_nothing_and_unknown_costs_have_no_bar() -> None:
    cost = {
        "forget_seconds": value(0.02),
        "retrain_seconds": value(None),
        "forget_bytes": 0,
        "retrain_bytes": 5000,
    }

    chart = draw_cost(cost)

    widths = [float(bar.get("width", "")) for bar in elements(chart, "rect", "bar")]
    assert [width > 0 for width in widths] == [True, False, False, True]
    labels = [label.text for label in elements(chart, "text", "bar-label")]
    assert labels == ["forget: 20 ms", "retrain: –", "forget: nothing", "retrain: 5 kB"]


def test_tradeoff_puts_the_better_method_up_and_left(comparison: dict[str, Any]) -> None:
    chart = draw_tradeoff(comparison, "bccd")

    labels = {label.text for label in elements(chart, "text", "point-label")}
    assert labels == {method["name"] for method in comparison["methods"]}
    assert len(elements(chart, "path", "hollow")) + len(elements(chart, "circle", "hollow")) == 2

    del comparison["results"][0]["figures"]["Average Gap"]
    assert len(elements(draw_tradeoff(comparison, "breastmnist"), "text", "point-label")) == len(labels) - 1
    assert draw_tradeoff(comparison, "another") is None
