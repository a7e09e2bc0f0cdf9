"""What a figure of the benchmark is, what it is held to, and what was found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from simulations.progress import Progress


class Relation(StrEnum):
    """How a figure relates to the bound of its target."""

    AT_MOST = "<="
    AT_LEAST = ">="
    BELOW = "<"
    ABOVE = ">"


@dataclass(frozen=True)
class Goal:
    """What a figure should reach: a comparison with a bound, in the figure's unit."""

    comparison: Relation
    bound: float

    def met_by(self, value: float) -> bool:
        """Say whether a value reaches the target; NaN never does."""
        reached = {
            Relation.AT_MOST: value <= self.bound,
            Relation.AT_LEAST: value >= self.bound,
            Relation.BELOW: value < self.bound,
            Relation.ABOVE: value > self.bound,
        }
        return reached[self.comparison]

    def __str__(self) -> str:
        return f"{self.comparison} {number(self.bound)}"


@dataclass(frozen=True)
class Figure:
    """One line of the benchmark, as it is announced before anything is measured.

    Attributes
    ----------
    name : str
        Unique, in kebab case.
    title : str
        What is measured, in one line.
    unit : str
        `x` for a ratio; otherwise a unit, or empty for a pure number.
    target : Goal or None
        What it should reach; None if it is only reported.
    """

    name: str
    title: str
    unit: str
    target: Goal | None = None


@dataclass(frozen=True)
class Result:
    """What became of one figure.

    Attributes
    ----------
    figure : Figure
        Which one.
    value : float
        In the figure's unit; NaN if it was not measured.
    note : str
        How it was measured where the title does not say, or why it was not.
    details : mapping
        JSON-ready values behind the figure.
    judged : bool
        Whether the value was measured at the sizes that the target is about.
    """

    figure: Figure
    value: float
    note: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    judged: bool = True

    @classmethod
    def missing(cls, figure: Figure, reason: str) -> Result:
        """Return the result of a figure that cannot be measured here."""
        return cls(figure, math.nan, f"not measured: {reason}")

    @property
    def measured(self) -> bool:
        """Whether there is a value."""
        return not math.isnan(self.value)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target, a value, or sizes that can be judged."""
        if self.figure.target is None or not self.measured or not self.judged:
            return None
        return self.figure.target.met_by(self.value)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary; what was not measured is None."""
        target = self.figure.target
        return {
            "name": self.figure.name,
            "title": self.figure.title,
            "measured": self.value if self.measured else None,
            "unit": self.figure.unit,
            "target": str(target) if target else None,
            "met": self.met,
            "note": self.note,
            "details": dict(self.details),
        }


@dataclass(frozen=True)
class Bench:
    """What every measurement is given.

    Attributes
    ----------
    progress : Progress
        Shows what is being done.
    quick : bool
        Whether to take small sizes, at which targets are not judged.
    data_folder : Path or None
        Where the medical images lie, `breastmnist.npz` and so on.
    weights : Path or None
        State dict of torchvision's `squeezenet1_0`, the encoder of the medical images.
    """

    progress: Progress
    quick: bool = False
    data_folder: Path | None = None
    weights: Path | None = None

    def result(self, figure: Figure, value: float, note: str = "", **details: Any) -> Result:
        """Return what was found for a figure."""
        return Result(figure, float(value), note, details, judged=not self.quick)


@dataclass(frozen=True)
class Group:
    """Figures that are measured together.

    Attributes
    ----------
    name : str
        What `--only` takes.
    figures : tuple of Figure
        What `measure` yields a result for, in this order.
    measure : callable
        Measures them.
    obstacle : callable
        Says why the figures cannot be measured; empty if they can.
    """

    name: str
    figures: tuple[Figure, ...]
    measure: Callable[[Bench], Iterator[Result]]
    obstacle: Callable[[Bench], str] = lambda _: ""

    def run(self, bench: Bench, reason: str = "") -> list[Result]:
        """Measure the figures, or give the reason why none of them was measured."""
        if reason:
            return [Result.missing(figure, reason) for figure in self.figures]
        return list(self.measure(bench))


def number(value: float) -> str:
    """Write a number with three significant digits, and large ones in full."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
