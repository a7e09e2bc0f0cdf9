"""How sure the federation is of forgotten records' labels: a histogram for each state, the oracle's outlined."""

from __future__ import annotations

import numpy as np
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from fedmunkey.simulations.reporting.charts.drawing import COLOURS, Chart, add_legend, new_figure, share_axis, styled
from fedmunkey.simulations.reporting.numerals import share

_ROWS = {
    "before": "forgotten, before deletion",
    "after": "forgotten, after deletion",
    "oracle": "forgotten, asked of the oracle",
    "test": "test records",
}
_BINS = 20
_DASHES = (0, (4, 2))


@styled
def draw_confidence(confidence: dict[str, list[float]]) -> Chart:
    """Draw the probabilities that were given to records' own labels; a state that nobody was asked in is left out."""
    known = [state for state in _ROWS if confidence[state]] or list(_ROWS)
    figure = new_figure(52 + 82 * len(known))
    rows = figure.subplots(len(known), sharex=True, sharey=True, squeeze=False)[:, 0]
    edges = np.linspace(0, 1, _BINS + 1)
    for axes, state in zip(rows, known, strict=True):
        colour = COLOURS[state]
        axes.stairs(_heights(confidence[state]), edges, fill=True, color=colour, alpha=0.4)
        axes.stairs(_heights(confidence[state]), edges, color=colour, linewidth=1)
        if state in ("before", "after") and "oracle" in known:
            axes.stairs(_heights(confidence["oracle"]), edges, color=COLOURS["oracle"], linewidth=1.5, ls=_DASHES)
        axes.set_title(_ROWS[state])
        axes.set_title(_median(confidence[state]), loc="right", weight="normal", color=COLOURS["quiet"])
        axes.set_yticks([])
        axes.set_ylim(bottom=0)
        share_axis(axes)
        axes.grid(visible=False, axis="y")
    rows[-1].set_xlabel("probability of the record's own label")
    if "oracle" in known:
        outline = Line2D([], [], color=COLOURS["oracle"], linewidth=1.5, linestyle=_DASHES, label="oracle, outlined")
        add_legend(figure, [outline])
    caption = (
        "Each histogram is one state; the dashed outline is the oracle's. Before deletion the two may differ. "
        "After deletion they should not: then a forgotten record is treated like one that was never seen."
    )
    if "oracle" not in known:
        caption = "Each histogram is one state. Only an oracle could show how the one after deletion should look."
    return Chart("How sure is the federation of a record's label?", caption, figure)


def _heights(values: list[float]) -> NDArray[np.float64]:
    counts, _ = np.histogram(values, bins=_BINS, range=(0, 1))
    return counts / max(len(values), 1)


def _median(values: list[float]) -> str:
    return f"median {share(round(float(np.median(values)), 3))}" if values else "no records"
