"""Measures in percent as dots on one scale: before deletion, after it, and the oracle, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedmunkey.simulations.reporting.charts.drawing import Chart, Drawing, Key, draw_across
from fedmunkey.simulations.reporting.charts.scales import Scale
from fedmunkey.simulations.reporting.numerals import interval

_STATES = {"oracle": "oracle", "before": "before deletion", "after": "after deletion"}
"""In the order in which they are drawn: the dot after deletion lies in the oracle's diamond."""
_WIDTH, _LEFT, _RIGHT = 420, 16, 400
_TOP, _ROW = 8, 48


def draw_measures(measures: Sequence[dict[str, Any]]) -> Chart | None:
    """Draw every measure in percent that is known for the state after deletion; None if there is none."""
    shown = [one for one in measures if one["unit"] == "%" and one.get("after", {}).get("mean") is not None]
    if not shown:
        return None
    title = "Before, after, and the oracle"
    bottom = _TOP + _ROW * len(shown)
    drawing = Drawing(title, _WIDTH, bottom + 24)
    scale = Scale(0, 100, _LEFT, _RIGHT)
    draw_across(drawing, scale, [(value, f"{value}%") for value in range(0, 101, 25)], "", top=_TOP, bottom=bottom)
    for row, measure in enumerate(shown):
        y = _TOP + _ROW * row + 32
        drawing.text((_LEFT, y - 16), measure["name"], "row-label", opaque=True)
        drawing.line((_LEFT, y), (_RIGHT, y), "floor")
        for state, label in _STATES.items():
            found = measure.get(state)
            if found is None or found["mean"] is None:
                continue
            half = found["half"] or 0.0
            drawing.line((scale(found["mean"] - half), y), (scale(found["mean"] + half), y), f"whisker {state}")
            place, tip = (scale(found["mean"]), y), f"{measure['name']} {label}: {interval(found)}%"
            if state == "oracle":
                drawing.diamond(place, "point oracle diamond", tip, radius=8)
            else:
                drawing.dot(place, f"point {state}", tip, radius=4)
    caption = "After deletion the dot should lie in the oracle's diamond, whether that is high or low."
    legend = (
        Key("point before", "before deletion"),
        Key("point after", "after deletion"),
        Key("point oracle diamond", "oracle"),
    )
    return Chart(title, caption, drawing.markup(), legend)
