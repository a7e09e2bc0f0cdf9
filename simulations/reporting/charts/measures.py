"""Measures in percent as dots on one scale: before deletion, after it, and the oracle, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from fedmunkey.simulations.reporting.charts.drawing import (
    COLOURS,
    Chart,
    add_legend,
    new_figure,
    share_axis,
    styled,
    tip,
)
from fedmunkey.simulations.reporting.numerals import interval

_STATES: dict[str, tuple[str, dict[str, Any]]] = {
    "oracle": ("oracle", {"marker": "D", "markersize": 10, "markerfacecolor": COLOURS["card"]}),
    "before": ("before deletion", {"marker": "o", "markersize": 7, "markerfacecolor": COLOURS["card"]}),
    "after": ("after deletion", {"marker": "o", "markersize": 7, "markeredgecolor": COLOURS["card"]}),
}
"""In the order in which they are drawn: the dot after deletion lies in the oracle's diamond."""


@styled
def draw_measures(measures: Sequence[dict[str, Any]]) -> Chart | None:
    """Draw every measure in percent that is known for the state after deletion; None if there is none."""
    shown = [one for one in measures if one["unit"] == "%" and one.get("after", {}).get("mean") is not None]
    if not shown:
        return None
    figure = new_figure(60 + 36 * len(shown))
    axes = figure.add_subplot()
    share_axis(axes)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_yticks(range(len(shown)), [measure["name"] for measure in shown], color=COLOURS["ink"], weight="bold")
    axes.tick_params("y", pad=12)
    for row, measure in enumerate(shown):
        for state, (label, shape) in _STATES.items():
            found = measure.get(state)
            if found is not None and found["mean"] is not None:
                mean, half = found["mean"] / 100, (found["half"] or 0.0) / 100
                axes.hlines(
                    row, max(mean - half, 0), min(mean + half, 1), color=COLOURS[state], alpha=0.4, linewidth=1.5
                )
                (dot,) = axes.plot(mean, row, color=COLOURS[state], clip_on=False, zorder=3, **_edge(shape))
                tip(dot, f"{measure['name']} {label}: {interval(found)}%")
    handles: list[Artist] = [
        Line2D([], [], color=COLOURS[state], linestyle="", label=label, **_edge(shape))
        for state, (label, shape) in _STATES.items()
    ]
    add_legend(figure, handles)
    caption = "After deletion the dot should lie in the oracle's diamond, whether that is high or low."
    return Chart("Before, after, and the oracle", caption, figure)


def _edge(shape: dict[str, Any]) -> dict[str, Any]:
    return {"markeredgewidth": 1 if "markeredgecolor" in shape else 2, **shape}
