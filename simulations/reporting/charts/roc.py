"""ROC curves of an attack on logarithmic axes, where few false positives can be told apart (Carlini et al. 2022)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fedmunkey.simulations.reporting.charts.drawing import Chart, Drawing, Key, Point, draw_across, draw_up
from fedmunkey.simulations.reporting.charts.scales import Scale, decade_below, decades
from fedmunkey.simulations.reporting.numerals import interval, share

_STATES = {"before": "before deletion", "after": "after deletion", "oracle": "oracle"}
_FALSE_POSITIVES = 0.01
"""Where a report counts true positives."""
_WIDTH, _HEIGHT = 420, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 400, 12, 286
_FINEST = 1e-4


def draw_roc(attack: dict[str, Any]) -> Chart:
    """Draw one attack's curves against every state that it was tried on."""
    states = {state: attack["states"][state] for state in _STATES if state in attack["states"]}
    positive = [rate for found in states.values() for rate in found["curve"]["false"] if rate > 0]
    low = min(max(decade_below(min(positive, default=1e-3)), _FINEST), _FALSE_POSITIVES)
    across = Scale(low, 1, _LEFT, _RIGHT, math.log10)
    up = Scale(low, 1, _BOTTOM, _TOP, math.log10)
    ticks = [(value, share(value)) for value in decades(low, 1)]
    drawing = Drawing(f"ROC curves: {attack['title']}", _WIDTH, _HEIGHT)
    draw_across(drawing, across, ticks, "false positives", top=_TOP, bottom=_BOTTOM)
    draw_up(drawing, up, ticks, "true positives", left=_LEFT, right=_RIGHT)
    drawing.line((across(low), up(low)), (across(1), up(1)), "chance")
    drawing.line((across(_FALSE_POSITIVES), _TOP), (across(_FALSE_POSITIVES), _BOTTOM), "counted")
    for state, found in states.items():
        points = _points(found["curve"]["false"], found["curve"]["true"], low)
        drawing.path([(across(x), up(y)) for x, y in points], f"curve {state}")
    legend = [
        Key(f"curve {state}", f"{_STATES[state]}, AUROC {interval(found['auroc'], 3)}")
        for state, found in states.items()
    ]
    return Chart(attack["title"], attack["question"], drawing.markup(), (*legend, Key("chance", "guessing")))


def _points(false: list[float], true: list[float], low: float) -> list[Point]:
    """Return a curve's points, with more of them where it slopes: a straight line is bent on logarithmic axes."""
    points: list[Point] = []
    for (x1, y1), (x2, y2) in zip(zip(false, true, strict=True), zip(false[1:], true[1:], strict=True), strict=False):
        points.append((x1, y1))
        if x2 > max(x1, low) and y2 > y1:
            between = np.geomspace(max(x1, low), x2, 18)[1:-1]
            points += [(float(x), y1 + (y2 - y1) * (float(x) - x1) / (x2 - x1)) for x in between]
    return [*points, (false[-1], true[-1])] if false else []
