"""How sure the federation is of forgotten records' labels: a histogram for each state, the oracle's outlined."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedmunkey.simulations.reporting.charts.drawing import Chart, Drawing, Key, Point, draw_across
from fedmunkey.simulations.reporting.charts.scales import Scale
from fedmunkey.simulations.reporting.numerals import share

_ROWS = {
    "before": "forgotten, before deletion",
    "after": "forgotten, after deletion",
    "oracle": "forgotten, asked of the oracle",
    "test": "test records",
}
_BINS = 20
_WIDTH, _LEFT, _RIGHT, _ROW, _BARS = 420, 12, 404, 86, 52


def draw_confidence(confidence: dict[str, list[float]]) -> Chart:
    """Draw the probabilities that were given to records' own labels."""
    title = "How sure is the federation of a record's label?"
    bottom = _ROW * len(_ROWS)
    drawing = Drawing(title, _WIDTH, bottom + 40)
    across = Scale(0, 1, _LEFT, _RIGHT)
    quarters = [(part, share(part)) for part in (0, 0.25, 0.5, 0.75, 1)]
    draw_across(drawing, across, quarters, "probability of the record's own label", top=24, bottom=bottom)
    heights = {state: _heights(confidence[state]) for state in _ROWS}
    tallest = max(float(found.max()) for found in heights.values()) or 1.0
    for row, (state, label) in enumerate(_ROWS.items()):
        floor = _ROW * (row + 1)
        up = Scale(0, tallest, floor, floor - _BARS)
        drawing.text((_LEFT, floor - _BARS - 9), label, "row-label", opaque=True)
        drawing.text((_RIGHT, floor - _BARS - 9), _median(confidence[state]), "tick", anchor="end", opaque=True)
        drawing.path(_outline(heights[state], across, up, whole=True), f"area {state}", closed=True)
        if state in ("before", "after"):
            drawing.path(_outline(heights["oracle"], across, up), "curve oracle")
        drawing.line((_LEFT, floor), (_RIGHT, floor), "floor")
    caption = (
        "Each histogram is one state; the dashed outline is the oracle's. Before deletion the two may differ. "
        "After deletion they should not: then a forgotten record is treated like one that was never seen."
    )
    legend = (
        Key("area before", "before deletion"),
        Key("area after", "after deletion"),
        Key("curve oracle", "oracle, outlined"),
        Key("area test", "test records"),
    )
    return Chart(title, caption, drawing.markup(), legend)


def _heights(values: list[float]) -> NDArray[np.float64]:
    counts, _ = np.histogram(values, bins=_BINS, range=(0, 1))
    return counts / max(len(values), 1)


def _outline(heights: NDArray[np.float64], across: Scale, up: Scale, *, whole: bool = False) -> list[Point]:
    edges = [across(number / _BINS) for number in range(_BINS + 1)]
    points = [
        (edge, up(float(height)))
        for number, height in enumerate(heights)
        for edge in (edges[number], edges[number + 1])
    ]
    return [(edges[0], up(0)), *points, (edges[-1], up(0))] if whole else points


def _median(values: list[float]) -> str:
    return f"median {share(round(float(np.median(values)), 3))}" if values else "no records"
