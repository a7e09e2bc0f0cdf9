"""What forgetting takes, beside retraining, as bars on logarithmic scales."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes

from fedmunkey.simulations.reporting.charts.drawing import COLOURS, Chart, new_figure, styled
from fedmunkey.simulations.reporting.numerals import seconds, size


@styled
def draw_cost(cost: dict[str, Any]) -> Chart:
    """Draw seconds and bytes of forgetting and of retraining."""
    figure = new_figure(300)
    above, below = figure.subplots(2)
    times = cost["forget_seconds"]["mean"], cost["retrain_seconds"]["mean"]
    _draw_panel(above, "time", times, seconds, _tick)
    _draw_panel(below, "sent over the network", (cost["forget_bytes"], cost["retrain_bytes"]), size, size)
    caption = "The scales are logarithmic: from line to line it is ten times as much."
    return Chart("What forgetting costs, beside retraining", caption, figure)


def _tick(value: float) -> str:
    """Return a power of ten in seconds; minutes would not be round."""
    return seconds(value) if value < 100 else f"{value:,.0f} s"


def _draw_panel(
    axes: Axes,
    heading: str,
    values: tuple[float | None, float | None],
    words: Callable[[float | None], str],
    tick: Callable[[float], str],
) -> None:
    positive = [value for value in values if value] or [1]
    low, high = math.floor(math.log10(min(positive))) - 1, math.ceil(math.log10(max(positive)))
    high = max(high, low + 1)
    axes.set_title(heading)
    axes.set_xscale("log")
    axes.set_xlim(10.0**low, 10.0**high)
    every = math.ceil((high - low + 1) / 6)
    axes.set_xticks([10.0**power for power in range(low, high + 1)])
    axes.set_xticklabels([tick(10.0**power) if not (power - low) % every else "" for power in range(low, high + 1)])
    axes.minorticks_off()
    axes.set_yticks([])
    axes.set_ylim(1.6, -0.6)
    for row, (label, colour, value) in enumerate(zip(("forget", "retrain"), ("after", "oracle"), values, strict=True)):
        axes.barh(row, (value or 10.0**low) - 10.0**low, left=10.0**low, height=0.6, color=COLOURS[colour])
        part = (math.log10(value) - low) / (high - low) if value else 0.0
        # Beside a long bar there is no room left.
        inside = part > 0.5
        axes.annotate(
            f"{label}: {words(value) if value != 0 else 'nothing'}",
            (part, row),
            (-7 if inside else 7 if part else 0, 0),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            va="center",
            ha="right" if inside else "left",
            color=COLOURS["card" if inside else "ink"],
        )
