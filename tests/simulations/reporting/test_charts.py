"""Drawings put things where the numbers say, keep labels apart, and are drawn from whatever is known."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from fedmunkey.simulations.reporting.charts.confidence import draw_confidence
from fedmunkey.simulations.reporting.charts.cost import draw_cost
from fedmunkey.simulations.reporting.charts.drawing import Chart
from fedmunkey.simulations.reporting.charts.labels import is_far, overlap, place_labels
from fedmunkey.simulations.reporting.charts.measures import draw_measures
from fedmunkey.simulations.reporting.charts.roc import draw_roc
from fedmunkey.simulations.reporting.charts.rounds import draw_deletions, draw_rounds
from fedmunkey.simulations.reporting.charts.tradeoff import draw_tradeoff


def only_axes(chart: Chart | None) -> Axes:
    assert chart is not None
    return chart.figure.axes[0]


def line(axes: Axes, label: str) -> Line2D:
    return next(line for line in axes.get_lines() if str(line.get_label()).startswith(label))


def data(line: Line2D) -> NDArray[np.float64]:
    return np.asarray(line.get_xydata(), dtype=np.float64)


def labels(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts if isinstance(text, Annotation)]


def value(mean: float | None, half: float | None = None) -> dict[str, Any]:
    return {"mean": mean, "half": half, "values": [mean]}


def attack(auroc: float, false: list[float], true: list[float]) -> dict[str, Any]:
    found = {"auroc": value(auroc), "true_positives": value(0.01), "curve": {"false": false, "true": true}}
    return {"name": "a", "title": "A", "question": "?", "paper": "", "judged": True, "states": {"after": found}}


def test_drawing_in_a_page_has_a_title_takes_its_colours_and_names_nothing_outside() -> None:
    chart = draw_rounds([(1, value(80, 1)), (2, value(85))], [{"round": 2, "label": "5 <records>"}])
    assert chart is not None

    root = fromstring(chart.svg)  # noqa: S314 (made here)

    assert root.attrib == {"viewBox": "0 0 400 300", "role": "img"}
    assert root[0].text == chart.title
    assert "round 2: 85.0%" in [title.text for title in root.iter("title")]
    assert "5 <records>" in [text.text for text in root.iter("text")]
    assert not re.search(r"#[0-9a-f]{6}\b|https?:|font-family|\d{4}-\d\d-\d\d", chart.svg)
    assert {"var(--after)", "var(--before)", "var(--quiet)"} <= set(re.findall(r"var\(--\w+\)", chart.svg))
    assert chart.svg == chart.svg


def test_names_of_what_is_drawn_again_differ_between_drawings_of_a_page() -> None:
    named = [re.findall(r' id="([^"]+)"', draw_roc(attack(0.5, [0, 1], [0, 1]) | {"title": name}).svg) for name in "AB"]

    assert named[0]
    assert set(named[0]).isdisjoint(named[1])


def test_drawing_is_saved_as_a_picture(tmp_path: Path) -> None:
    draw_confidence({"before": [0.9], "after": [0.2], "oracle": [], "test": []}).save(tmp_path / "drawn.png")

    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_labels_hide_neither_each_other_nor_points() -> None:
    crowd = [(100 + 9.0 * (number % 4), 100 + 9.0 * (number // 4)) for number in range(12)]

    placed = place_labels(crowd, [f"method-{number}" for number in range(12)], Bbox.from_extents(0, 0, 400, 300))

    boxes = [box for box in placed if box is not None]
    assert len(boxes) == len(crowd)
    assert all(overlap(one, other) == 0 for one, other in combinations(boxes, 2))
    dots = [Bbox.from_extents(x - 4, y - 4, x + 4, y + 4) for x, y in crowd]
    assert all(overlap(box, dot) == 0 for box in boxes for dot in dots)
    assert any(is_far(box, point) for box, point in zip(boxes, crowd, strict=True))
    assert place_labels([(5, 5)], ["fits nowhere"], Bbox.from_extents(0, 0, 10, 10)) == [None]


def test_guessing_lies_on_the_line_of_chance_and_a_right_attack_reaches_the_top_at_once() -> None:
    chance, right = (
        data(line(only_axes(draw_roc(attack(*found))), "after"))
        for found in ((0.5, [0, 1], [0, 1]), (1, [0, 0, 1], [0, 1, 1]))
    )

    assert len(chance) > 10
    assert chance[:, 1] == pytest.approx(chance[:, 0])
    assert right == pytest.approx(np.array([[0.01, 0.01], [0.01, 1], [1, 1]]))


def test_rounds_without_a_known_accuracy_are_not_drawn() -> None:
    assert draw_rounds([(1, value(None))], []) is None
    assert draw_deletions([]) is None
    assert draw_measures([]) is None


def test_deletion_is_marked_between_its_rounds() -> None:
    accuracies = [(number, value(80 + number)) for number in (1, 2, 3)]

    axes = only_axes(draw_rounds(accuracies, [{"round": 3, "label": "5@3"}]))

    assert data(line(axes, "deletion"))[:, 0].tolist() == [2.5, 2.5]
    assert labels(axes) == ["5@3"]


def test_hospital_without_records_left_has_a_line_that_ends() -> None:
    hospitals = {"hospital-1": [(1, value(50)), (2, value(60))], "hospital-2": [(1, value(70)), (2, value(None))]}

    axes = only_axes(draw_rounds([(1, value(60)), (2, value(60))], [], hospitals))

    ends = [data(each)[:, 0].tolist() for each in axes.get_lines() if each.get_label() == "each hospital"]
    assert ends == [[1, 2], [1]]
    assert data(line(axes, "mean of hospitals"))[:, 1].tolist() == [60, 60]


@pytest.mark.parametrize(("oracle", "rows"), [([0.3], 4), ([], 3)])
def test_confidence_has_a_row_for_each_state_that_was_asked(oracle: list[float], rows: int) -> None:
    chart = draw_confidence({"before": [0.9, 0.8], "after": [0.2, 0.1], "oracle": oracle, "test": [0.5]})

    titles = [axes.get_title("left") for axes in chart.figure.axes]
    assert len(titles) == rows
    assert ("dashed outline" in chart.caption) == bool(oracle)
    assert titles[0] == "forgotten, before deletion"
    assert [axes.get_title("right") for axes in chart.figure.axes][:2] == ["median 85%", "median 15%"]


def test_costs_of_nothing_and_unknown_costs_have_no_bar() -> None:
    cost = {"forget_seconds": value(0.02), "retrain_seconds": value(None), "forget_bytes": 0, "retrain_bytes": 5000}

    panels = draw_cost(cost).figure.axes

    assert [bar.get_extents().width > 0 for axes in panels for bar in axes.patches] == [True, False, False, True]
    shown = [words for axes in panels for words in labels(axes)]
    assert shown == ["forget: 20 ms", "retrain: –", "forget: nothing", "retrain: 5 kB"]


def test_tradeoff_puts_every_method_at_its_figures_and_names_it(comparison: dict[str, Any]) -> None:
    axes = only_axes(draw_tradeoff(comparison, "bccd"))

    assert set(labels(axes)) == {method["name"] for method in comparison["methods"]}
    hollow = [dot for dot in axes.get_lines() if dot.get_markeredgewidth() == 2]
    assert len(hollow) == sum(method["retrains"] for method in comparison["methods"])
    figures = [result["figures"] for result in comparison["results"] if result["data"] == "bccd"]
    dots = [data(dot)[0].tolist() for dot in axes.get_lines()]
    assert dots == [[found["Average Gap"]["mean"], found["TA"]["mean"]] for found in figures]

    del comparison["results"][0]["figures"]["Average Gap"]
    assert len(labels(only_axes(draw_tradeoff(comparison, "breastmnist")))) == len(labels(axes)) - 1
    assert draw_tradeoff(comparison, "another") is None
