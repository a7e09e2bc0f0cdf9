"""Average Gap against test accuracy, one point for each method: the upper left corner forgets well and knows much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedmunkey.simulations.reporting.charts.drawing import Chart, Drawing, Key, Point, draw_across, draw_up
from fedmunkey.simulations.reporting.charts.labels import Box, place_labels
from fedmunkey.simulations.reporting.charts.scales import Scale, round_ticks
from fedmunkey.simulations.reporting.numerals import interval

ACCURACY, GAP = "TA", "Average Gap"
"""Columns of a comparison that are drawn against each other."""
_WIDTH, _HEIGHT = 420, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 404, 12, 356
_FAMILIES = 3
"""Families that have a shape and colour of their own; all others share the last."""


def draw_tradeoff(comparison: Mapping[str, Any], data: str) -> Chart | None:
    """Draw one data set's methods; None if no method has both figures."""
    methods = {method["name"]: method for method in comparison["methods"]}
    found = [
        (methods[result["method"]], result["figures"][GAP], result["figures"][ACCURACY])
        for result in comparison["results"]
        if result["data"] == data and _mean(result, GAP) is not None and _mean(result, ACCURACY) is not None
    ]
    if not found:
        return None
    across, up = _scales([(gap["mean"], accuracy["mean"]) for _, gap, accuracy in found])
    drawing = Drawing(f"Average Gap and test accuracy on {data}", _WIDTH, _HEIGHT)
    gaps = [value for value in (0, 0.5, 1, 2, 5, 10, 20, 40, 80) if value <= across.high]
    draw_across(
        drawing, across, [(value, f"{value:g}") for value in gaps], "Average Gap in points", top=_TOP, bottom=_BOTTOM
    )
    heights = [(value, f"{value:g}%") for value in round_ticks(up.low, up.high)]
    draw_up(drawing, up, heights, "test accuracy", left=_LEFT, right=_RIGHT)
    families = list(dict.fromkeys(method["family"] for method in comparison["methods"]))
    places: list[tuple[Point, str]] = []
    for method, gap, accuracy in found:
        style = _style(families, method)
        for axis, value in ((across, gap), (up, accuracy)):
            _whisker(drawing, axis is across, (across(gap["mean"]), up(accuracy["mean"])), axis, value, style)
        places.append(((across(gap["mean"]), up(accuracy["mean"])), method["name"]))
    for (method, gap, accuracy), (place, _) in zip(found, places, strict=True):
        tip = f"{method['title']}: Average Gap {interval(gap)}, test accuracy {interval(accuracy)}%"
        style = _style(families, method)
        draw = drawing.diamond if "diamond" in style else drawing.dot
        draw(place, f"point {style}", tip)
    for label in place_labels(places, Box(_LEFT + 2, _TOP, _RIGHT, _BOTTOM - 2)):
        if label.far:
            drawing.line(label.point, label.near, "leader")
        drawing.text((label.box.left, label.box.bottom - 2), label.words, "point-label", opaque=True)
    numbers = [min(number, _FAMILIES) for number in range(1, len(families) + 1)]
    legend = [
        Key(f"point family-{number}{_shape(number)}", family) for number, family in zip(numbers, families, strict=True)
    ]
    return Chart(data, "", drawing.markup(), tuple(legend))


def _mean(result: dict[str, Any], name: str) -> float | None:
    found: float | None = result["figures"].get(name, {"mean": None})["mean"]
    return found


def _scales(means: Sequence[tuple[float, float]]) -> tuple[Scale, Scale]:
    gaps, accuracies = zip(*means, strict=True)
    # Labels need some room around the outermost points.
    room = max(0.2 * (max(accuracies) - min(accuracies)), 0.5)
    low, high = max(min(accuracies) - room, 0.0), min(max(accuracies) + room, 100.0)
    across = Scale(0, max(1.3 * max(gaps), 1), _LEFT + 10, _RIGHT, math.sqrt)
    return across, Scale(low, high, _BOTTOM, _TOP)


def _style(families: Sequence[str], method: dict[str, Any]) -> str:
    number = min(families.index(method["family"]) + 1, _FAMILIES)
    return f"family-{number}{_shape(number)}{' hollow' if method['retrains'] else ''}"


def _shape(number: int) -> str:
    return "" if number % 2 else " diamond"


def _whisker(drawing: Drawing, level: bool, place: Point, scale: Scale, found: dict[str, Any], style: str) -> None:
    half = found["half"] or 0.0
    ends = [scale(max(found["mean"] + side * half, 0.0)) for side in (-1, 1)]
    start, end = [(end, place[1]) if level else (place[0], end) for end in ends]
    drawing.line(start, end, f"whisker {style}")
