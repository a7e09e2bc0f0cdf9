"""Accuracy over time: after each round of training, and after each of several deletions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from fedmunkey.simulations.reporting.charts.drawing import (
    COLOURS,
    Chart,
    add_legend,
    annotate,
    new_figure,
    percent,
    styled,
    tip,
)
from fedmunkey.simulations.reporting.numerals import Interval, interval

Series = Sequence[tuple[float, Interval]]
_MARK: dict[str, Any] = {"color": COLOURS["before"], "linewidth": 1.25, "linestyle": (0, (4, 3)), "label": "deletion"}


@styled
def draw_rounds(
    series: Series,
    marks: Sequence[Mapping[str, Any]],
    hospitals: Mapping[str, Series] | None = None,
    *,
    label: str = "each hospital",
) -> Chart | None:
    """Draw test accuracy after each round, and where deletions happened; None if no accuracy is known.

    Without `hospitals` it is the mean over seeds; with, the mean of these, which have thin lines of their own,
    or of what `label` says.
    """
    series = _known(series)
    if not series:
        return None
    figure, axes = _frame("round", "test accuracy")
    handles = _draw(axes, series, "after", "mean of hospitals" if hospitals else "mean over seeds")
    lines: list[Artist] = []
    for name, found in (hospitals or {}).items():
        if own := _known(found):
            lines += axes.plot(*_means(own), color=COLOURS["test"], linewidth=1, zorder=1, label=label)
            tip(lines[-1], f"{name}: {interval(own[-1][1])}% after round {own[-1][0]}")
    dashes: list[Artist] = [axes.axvline(mark["round"] - 0.5, **_MARK) for mark in marks]
    for mark in marks:
        place, up = (mark["round"] - 0.5, 0), axes.get_xaxis_transform()
        annotate(axes, mark["label"], place, (-4, 4), xycoords=up, rotation=90, ha="right", color=COLOURS["before"])
    add_legend(figure, [*handles, *lines[:1], *dashes[:1]])
    caption = "A deletion should leave no lasting dent: hospitals go on learning from what they still have."
    return Chart("Test accuracy over the rounds of training", caption if marks else "", figure)


@styled
def draw_deletions(after: Sequence[dict[str, Any]]) -> Chart | None:
    """Draw test and forget accuracy after each of several deletions; None if there are none."""
    names = {
        "test_accuracy": ("after", "test records"),
        "forget_accuracy": ("before", "all records forgotten so far"),
        "first_forget_accuracy": ("oracle", "what the first deletion forgot"),
    }
    # Documents of earlier versions do not say what became of the first deletion's records.
    found = {name: _known([(step["deletion"], step[name]) for step in after if name in step]) for name in names}
    if not any(found.values()):
        return None
    figure, axes = _frame("deletion", "accuracy")
    handles = [_draw(axes, found[name], style, label)[0] for name, (style, label) in names.items() if found[name]]
    add_legend(figure, handles)
    return Chart("Accuracy after each deletion", "Many deletions in a row should cost no more than one.", figure)


def _known(found: Series) -> Series:
    return [(number, value) for number, value in found if value["mean"] is not None]


def _means(series: Series) -> tuple[list[float], list[float]]:
    return [number for number, _ in series], [value["mean"] for _, value in series]


def _frame(across: str, up: str) -> tuple[Figure, Axes]:
    figure = new_figure(300)
    axes = figure.add_subplot(xlabel=across, ylabel=up, ymargin=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(percent)
    axes.grid(visible=False, axis="x")
    return figure, axes


def _draw(axes: Axes, series: Series, style: str, label: str) -> list[Artist]:
    """Draw a line through dots with the band of its intervals, if it has any; return what a legend shows."""
    numbers, means = _means(series)
    halves = [value["half"] or 0.0 for _, value in series]
    handles: list[Artist] = [*axes.plot(numbers, means, color=COLOURS[style], label=label, zorder=3)]
    if any(halves):
        low, high = ([mean + side * half for mean, half in zip(means, halves, strict=True)] for side in (-1, 1))
        axes.fill_between(numbers, low, high, color=COLOURS[style], alpha=0.16, linewidth=0)
        handles.append(Patch(color=COLOURS[style], alpha=0.16, linewidth=0, label="95% interval"))
    for number, value in series:
        (dot,) = axes.plot(number, value["mean"], "o", color=COLOURS[style], ms=5, mec=COLOURS["card"], zorder=4)
        tip(dot, f"{axes.get_xlabel()} {number:g}: {interval(value)}%")
    return handles
