"""Average Gap against test accuracy, one point for each method: the upper left corner forgets well and knows much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from fedmunkey.simulations.reporting.charts.drawing import (
    COLOURS,
    Chart,
    add_legend,
    annotate,
    new_figure,
    percent,
    settle,
    styled,
    tip,
)
from fedmunkey.simulations.reporting.charts.labels import is_far, place_labels
from fedmunkey.simulations.reporting.numerals import interval

ACCURACY, GAP = "TA", "Average Gap"
"""Columns of a comparison that are drawn against each other."""
_FAMILIES = (("after", "o"), ("before", "D"), ("third", "o"))
"""Colours and shapes of the first families; all others share the last."""
_GAPS = (0, 0.5, 1, 2, 5, 10, 20, 40, 80)
_Found = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]


@styled
def draw_tradeoff(comparison: Mapping[str, Any], data: str) -> Chart | None:
    """Draw one data set's methods; None if no method has both figures."""
    methods = {method["name"]: method for method in comparison["methods"]}
    found: list[_Found] = [
        (methods[result["method"]], result["figures"][GAP], result["figures"][ACCURACY])
        for result in comparison["results"]
        if result["data"] == data and all(_mean(result, name) is not None for name in (GAP, ACCURACY))
    ]
    if not found:
        return None
    figure = new_figure(410)
    axes = figure.add_subplot()
    _scale(axes, [gap["mean"] for _, gap, _ in found], [accuracy["mean"] for _, _, accuracy in found])
    families = list(dict.fromkeys(method["family"] for method in comparison["methods"]))
    for method, gap, accuracy in found:
        shape = _shape(families, method["family"], hollow=method["retrains"])
        whisker = {"color": shape["color"], "alpha": 0.4, "linewidth": 1.5}
        axes.hlines(accuracy["mean"], *_ends(gap), **whisker)
        axes.vlines(gap["mean"], *_ends(accuracy), **whisker)
        (dot,) = axes.plot(gap["mean"], accuracy["mean"], zorder=3, clip_on=False, **shape)
        tip(dot, f"{method['title']}: Average Gap {interval(gap)}, test accuracy {interval(accuracy)}%")
    handles: list[Artist] = [Line2D([], [], label=family, **_shape(families, family)) for family in families]
    add_legend(figure, handles)
    _label(figure, axes, found)
    return Chart(data, "", figure)


def _mean(result: dict[str, Any], name: str) -> float | None:
    found: float | None = result["figures"].get(name, {"mean": None})["mean"]
    return found


def _ends(found: dict[str, Any]) -> tuple[float, float]:
    half = found["half"] or 0.0
    return max(found["mean"] - half, 0.0), found["mean"] + half


def _scale(axes: Axes, gaps: Sequence[float], accuracies: Sequence[float]) -> None:
    axes.set_xscale("function", functions=(lambda gap: np.sqrt(np.maximum(gap, 0)), np.square))
    widest = max(1.3 * max(gaps), 1)
    axes.set_xlim(0, widest)
    axes.set_xticks([gap for gap in _GAPS if gap <= widest], [f"{gap:g}" for gap in _GAPS if gap <= widest])
    # Labels need some room around the outermost points.
    room = max(0.2 * (max(accuracies) - min(accuracies)), 0.5)
    axes.set_ylim(max(min(accuracies) - room, 0.0), min(max(accuracies) + room, 100.0))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(percent)
    axes.set_xlabel("Average Gap in points")
    axes.set_ylabel("test accuracy")


def _shape(families: Sequence[str], family: str, *, hollow: bool = False) -> dict[str, Any]:
    colour, marker = _FAMILIES[min(families.index(family), len(_FAMILIES) - 1)]
    card = COLOURS["card"]
    fill = {"markerfacecolor": card, "markeredgewidth": 2} if hollow else {"markeredgecolor": card}
    size = 8 if marker == "o" else 7
    return {"color": COLOURS[colour], "marker": marker, "linestyle": "", "markersize": size, **fill}


def _label(figure: Figure, axes: Axes, found: Sequence[_Found]) -> None:
    """Write the methods' names beside their points; where these are is known once everything else has its place."""
    settle(figure)
    names = [method["name"] for method, _, _ in found]
    means = [(gap["mean"], accuracy["mean"]) for _, gap, accuracy in found]
    points = [(float(x), float(y)) for x, y in axes.transData.transform(means)]
    boxes = place_labels(points, names, Bbox(axes.get_window_extent()))
    leader = {"arrowstyle": "-", "color": COLOURS["quiet"], "linewidth": 0.75}
    for name, mean, point, box in zip(names, means, points, boxes, strict=True):
        if box is not None:
            away = box.x0 - point[0], box.y0 + 3 - point[1]
            annotate(axes, name, mean, away, arrowprops=leader if is_far(box, point) else None)
