"""Learning curves as a picture: one line for each site, a thick one for their mean, one panel for each measure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_MEASURES = (
    ("evaluation", "test-accuracy", "test accuracy"),
    ("evaluation", "val-accuracy", "validation accuracy"),
    ("training", "train-loss", "training loss"),
)
"""Where a round has each measure, its name there, and its title."""

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f", "#6b4fa0")
"""Okabe and Ito's, which people tell apart whatever colours they see; more sites than that begin again."""

_NAMED = 12
"""Sites that a legend names; of more, only the mean is named."""

_WIDTH, _HEIGHT, _LEFT, _TOP = 640, 220, 56, 34


@dataclass(frozen=True)
class _Line:
    """A line of a panel: its name, `x,y` points in pixels as SVG has them, and how it looks."""

    name: str
    points: tuple[str, ...]
    colour: str
    width: float


@dataclass(frozen=True)
class _Panel:
    """One measure: its title, its lines, and (pixels from the top, text) and (pixels from the left, text) marks."""

    title: str
    top: int
    lines: tuple[_Line, ...]
    levels: tuple[tuple[float, str], ...]
    rounds: tuple[tuple[float, str], ...]


def draw_learning_curves(rounds: Sequence[Mapping[str, Any]]) -> str:
    """Return an SVG document of a run's rounds, as its events hold them; nothing where no site told any measure."""
    panels: list[_Panel] = []
    for part, name, title in _MEASURES:
        curves = _curves(rounds, part, name)
        if any(curves.values()):
            panels.append(_panel(title, curves, len(panels) * (_HEIGHT + _TOP) + _TOP))
    if not panels:
        return ""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True, undefined=StrictUndefined
    )
    named = [line for line in panels[0].lines if line.name]
    return templates.get_template("learning_curves.svg").render(
        panels=panels,
        named=named,
        left=_LEFT,
        width=_WIDTH,
        height=_HEIGHT,
        total_height=len(panels) * (_HEIGHT + _TOP) + _TOP,
        total_width=_LEFT + _WIDTH + 180,
    )


def _curves(rounds: Sequence[Mapping[str, Any]], part: str, name: str) -> dict[str, list[tuple[int, float]]]:
    """Return (round, value) of each site, in the order of their names, and under no name those of the mean."""
    found: dict[str, list[tuple[int, float]]] = {}
    for event in rounds:
        told = {site: each.get(name) for site, each in event[part].items()}
        known = {site: float(value) for site, value in told.items() if value is not None and math.isfinite(value)}
        for site, value in known.items():
            found.setdefault(site, []).append((int(event["number"]), value))
        if known:
            found.setdefault("", []).append((int(event["number"]), sum(known.values()) / len(known)))
    return dict(sorted(found.items()))


def _panel(title: str, curves: Mapping[str, list[tuple[int, float]]], top: int) -> _Panel:
    values = [value for curve in curves.values() for _, value in curve]
    numbers = sorted({number for curve in curves.values() for number, _ in curve})
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = low - 0.05, high + 0.05
    first, last = numbers[0], numbers[-1]

    def across(number: int) -> float:
        return _LEFT + (_WIDTH * (number - first) / (last - first) if last > first else _WIDTH / 2)

    def down(value: float) -> float:
        return top + _HEIGHT * (high - value) / (high - low)

    sites = [name for name in curves if name]
    lines = [
        _Line(
            name if len(sites) <= _NAMED else "",
            tuple(f"{across(number):.1f},{down(value):.1f}" for number, value in curves[name]),
            _COLOURS[place % len(_COLOURS)],
            1.5,
        )
        for place, name in enumerate(sites)
    ]
    mean = tuple(f"{across(number):.1f},{down(value):.1f}" for number, value in curves[""])
    levels = [low + (high - low) * step / 4 for step in range(5)]
    shown = numbers if len(numbers) <= 10 else [numbers[(len(numbers) - 1) * step // 9] for step in range(10)]
    return _Panel(
        title,
        top,
        (*lines, _Line("mean over sites", mean, "#000000", 3.0)),
        tuple((round(down(level), 1), f"{level:.3g}") for level in levels),
        tuple((round(across(number), 1), str(number)) for number in dict.fromkeys(shown)),
    )
