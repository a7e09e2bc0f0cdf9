"""What forgetting takes, beside retraining, as bars on logarithmic scales."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fedmunkey.simulations.reporting.charts.drawing import Chart, Drawing
from fedmunkey.simulations.reporting.charts.scales import Scale, decade_above, decade_below, decades
from fedmunkey.simulations.reporting.numerals import seconds, size

_WIDTH, _LEFT, _RIGHT = 420, 12, 408
_PANEL, _BAR = 150, 22


def draw_cost(cost: dict[str, Any]) -> Chart:
    """Draw seconds and bytes of forgetting and of retraining."""
    title = "What forgetting costs, beside retraining"
    drawing = Drawing(title, _WIDTH, 2 * _PANEL)
    times = cost["forget_seconds"]["mean"], cost["retrain_seconds"]["mean"]
    _draw_panel(drawing, 0, "time", times, seconds, _tick)
    _draw_panel(drawing, _PANEL, "sent over the network", (cost["forget_bytes"], cost["retrain_bytes"]), size, size)
    return Chart(title, "The scales are logarithmic: from line to line it is ten times as much.", drawing.markup())


def _tick(value: float) -> str:
    """Return a power of ten in seconds; minutes would not be round."""
    return seconds(value) if value < 100 else f"{value:,.0f} s"


def _draw_panel(
    drawing: Drawing,
    top: float,
    heading: str,
    values: tuple[float | None, float | None],
    words: Callable[[float | None], str],
    tick: Callable[[float], str],
) -> None:
    drawing.text((_LEFT, top + 14), heading, "row-label")
    positive = [value for value in values if value]
    low = decade_below(min(positive, default=1)) / 10
    scale = Scale(low, max(decade_above(max(positive, default=1)), 10 * low), _LEFT, _RIGHT, math.log10)
    floor = top + 108
    ticks = decades(scale.low, scale.high)
    for power in ticks:
        drawing.line((scale(power), top + 24), (scale(power), floor), "grid")
    for power in ticks[:: math.ceil(len(ticks) / 6)]:
        anchor = "start" if power == scale.low else "end" if power == scale.high else "middle"
        drawing.text((scale(power), floor + 15), tick(power), "tick", anchor=anchor)
    for row, (label, value, style) in enumerate(zip(("forget", "retrain"), values, ("after", "oracle"), strict=True)):
        y = top + 30 + row * (_BAR + 16)
        length = scale(value) - _LEFT if value else 0
        drawing.bar((_LEFT, y), length, _BAR, f"bar {style}")
        # Beside a long bar there is no room left.
        inside = length > (_RIGHT - _LEFT) / 2
        shown = f"{label}: {words(value) if value != 0 else 'nothing'}"
        place = _LEFT + length + (-8 if inside else 8 if length else 0)
        style = "bar-label inside" if inside else "bar-label"
        drawing.text((place, y + 16), shown, style, anchor="end" if inside else "start", opaque=not inside)
