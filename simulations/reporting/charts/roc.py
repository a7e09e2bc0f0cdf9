"""ROC curves of an attack on logarithmic axes, where few false positives can be told apart (Carlini et al. 2022)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmunkey.simulations.reporting.charts.drawing import COLOURS, Chart, add_legend, new_figure, styled
from fedmunkey.simulations.reporting.numerals import interval, share

_STATES = {"before": "before deletion", "after": "after deletion", "oracle": "oracle"}
_FALSE_POSITIVES = 0.01
"""Where a report counts true positives."""
_FINEST = 1e-4


@styled
def draw_roc(attack: dict[str, Any]) -> Chart:
    """Draw one attack's curves against every state that it was tried on."""
    states = {state: attack["states"][state] for state in _STATES if state in attack["states"]}
    positive = [rate for found in states.values() for rate in found["curve"]["false"] if rate > 0]
    low = min(max(_decade_below(min(positive, default=1e-3)), _FINEST), _FALSE_POSITIVES)
    figure = new_figure(390)
    axes = figure.add_subplot()
    axes.set(
        xscale="log", yscale="log", xlim=(low, 1), ylim=(low, 1), xlabel="false positives", ylabel="true positives"
    )
    decades = [10.0**power for power in range(round(math.log10(low)), 1)]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(decades, [share(value) for value in decades])
    axes.minorticks_off()
    (chance,) = axes.plot(
        [low, 1], [low, 1], color=COLOURS["quiet"], linewidth=1, linestyle=(0, (2, 3)), label="guessing"
    )
    axes.axvline(_FALSE_POSITIVES, color=COLOURS["quiet"], linewidth=1, linestyle=(0, (1, 3)))
    curves = []
    for state, found in states.items():
        (curve,) = axes.plot(
            *_points(found["curve"]["false"], found["curve"]["true"], low),
            color=COLOURS[state],
            linestyle=(0, (5, 2)) if state == "oracle" else "-",
            linewidth=1.75 if state == "oracle" else 2,
            label=f"{_STATES[state]}, AUROC {interval(found['auroc'], 3)}",
        )
        curves.append(curve)
    add_legend(figure, [*curves, chance], 1)
    return Chart(attack["title"], attack["question"], figure)


def _points(false: list[float], true: list[float], low: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a curve's points, with more of them where it slopes: a straight line is bent on logarithmic axes.

    What is below the lowest rate that is shown is put on it.
    """
    shown: list[tuple[float, float]] = []
    points = list(zip(false, true, strict=True))
    for (x1, y1), (x2, y2) in pairwise(points):
        shown.append((x1, y1))
        if x2 > max(x1, low) and y2 > y1:
            between = np.geomspace(max(x1, low), x2, 18)[1:-1]
            shown += zip(between.tolist(), np.interp(between, (x1, x2), (y1, y2)).tolist(), strict=True)
    across, up = np.maximum(np.array([*shown, *points[-1:]]).reshape(-1, 2).T, low)
    return across, up


def _decade_below(value: float) -> float:
    """Return the largest power of ten that is not above a positive number."""
    return float(10.0 ** math.floor(math.log10(value) + 1e-9))
