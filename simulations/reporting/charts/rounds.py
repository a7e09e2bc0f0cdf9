"""Accuracy over time: after each round of training, and after each of several deletions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fedmunkey.simulations.reporting.charts.drawing import Chart, Drawing, Key, draw_across, draw_up
from fedmunkey.simulations.reporting.charts.scales import Scale, round_ticks
from fedmunkey.simulations.reporting.numerals import Interval, interval

_WIDTH, _HEIGHT = 420, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 404, 12, 246
Series = Sequence[tuple[float, Interval]]


def draw_rounds(rounds: Sequence[dict[str, Any]], marks: Sequence[dict[str, Any]]) -> Chart | None:
    """Draw test accuracy after each round, and where deletions happened; None if no accuracy is known."""
    series = _known([(found["round"], found["test_accuracy"]) for found in rounds])
    if not series:
        return None
    numbers = [*(number for number, _ in series), *(mark["round"] - 0.5 for mark in marks)]
    across = Scale(min(numbers) - 0.5, max(numbers) + 0.5, _LEFT, _RIGHT)
    title = "Test accuracy over the rounds of training"
    drawing, up = _frame(title, across, "round", [series])
    for mark in marks:
        place = across(mark["round"] - 0.5)
        drawing.line((place, _TOP), (place, _BOTTOM), "mark")
        drawing.text((place - 4, _BOTTOM - 6), mark["label"], "mark-label", turned=True, opaque=True)
    _draw(drawing, across, up, series, "after", "round")
    legend = [Key("curve after", "mean over seeds"), Key("band after", "95% interval")]
    legend += [Key("mark", "deletion")] if marks else []
    caption = "A deletion should leave no lasting dent: hospitals go on learning from what they still have."
    return Chart(title, caption if marks else "", drawing.markup(), tuple(legend))


def draw_deletions(after: Sequence[dict[str, Any]]) -> Chart | None:
    """Draw test and forget accuracy after each of several deletions; None if there are none."""
    names = {"test_accuracy": ("after", "test records"), "forget_accuracy": ("before", "all records forgotten so far")}
    found = {name: _known([(step["deletion"], step[name]) for step in after]) for name in names}
    known = [series for series in found.values() if series]
    if not known:
        return None
    numbers = [number for series in known for number, _ in series]
    across = Scale(min(numbers) - 0.5, max(numbers) + 0.5, _LEFT, _RIGHT)
    title = "Accuracy after each deletion"
    drawing, up = _frame(title, across, "deletion", known)
    for name, (style, _) in names.items():
        _draw(drawing, across, up, found[name], style, "deletion")
    legend = tuple(Key(f"curve {style}", label) for style, label in names.values())
    return Chart(title, "Many deletions in a row should cost no more than one.", drawing.markup(), legend)


def _known(found: Series) -> Series:
    return [(number, value) for number, value in found if value["mean"] is not None]


def _frame(title: str, across: Scale, what: str, series: Sequence[Series]) -> tuple[Drawing, Scale]:
    ends = [value["mean"] + side * (value["half"] or 0.0) for found in series for _, value in found for side in (-1, 1)]
    low = max(5 * math.floor(min(ends) / 5 - 0.4), 0)
    high = min(5 * math.ceil(max(ends) / 5 + 0.4), 100)
    up = Scale(low, max(high, low + 5), _BOTTOM, _TOP)
    drawing = Drawing(title, _WIDTH, _HEIGHT)
    whole = [value for value in round_ticks(across.low, across.high, 9) if value.is_integer()]
    draw_across(drawing, across, [(value, f"{value:g}") for value in whole], what, top=_TOP, bottom=_BOTTOM)
    heights = [(value, f"{value:g}%") for value in round_ticks(up.low, up.high)]
    draw_up(drawing, up, heights, "accuracy", left=_LEFT, right=_RIGHT)
    return drawing, up


def _draw(drawing: Drawing, across: Scale, up: Scale, series: Series, style: str, what: str) -> None:
    edges = [
        [(across(number), up(value["mean"] + side * (value["half"] or 0.0))) for number, value in series]
        for side in (1, -1)
    ]
    drawing.path([*edges[0], *reversed(edges[1])], f"band {style}", closed=True)
    points = [(across(number), up(value["mean"])) for number, value in series]
    drawing.path(points, f"curve {style}")
    for point, (number, value) in zip(points, series, strict=True):
        drawing.dot(point, f"point {style}", f"{what} {number:g}: {interval(value)}%", radius=3)
