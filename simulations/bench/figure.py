"""What a figure of the benchmark is, what it is held to, and what was found."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedmunkey.common.programs.bound_program import temporary_folder
from fedmunkey.simulations.programs.progress import Progress

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge, "<": operator.lt}


@dataclass(frozen=True)
class Bound:
    """What a figure should reach: `<=`, `>=` or `<` a bound, in the figure's unit."""

    comparison: str
    bound: float

    def met_by(self, value: float) -> bool:
        """Say whether a value reaches the target; NaN never does."""
        return _COMPARISONS[self.comparison](value, self.bound)

    def __str__(self) -> str:
        return f"{self.comparison} {number(self.bound)}"


def at_most(bound: float) -> Bound:
    """Return the target of a figure that should not be larger."""
    return Bound("<=", bound)


def at_least(bound: float) -> Bound:
    """Return the target of a figure that should not be smaller."""
    return Bound(">=", bound)


def below(bound: float) -> Bound:
    """Return the target of a figure that should be smaller."""
    return Bound("<", bound)


@dataclass(frozen=True)
class Figure:
    """One line of the benchmark, as it is announced before anything is measured.

    Its name is in kebab case, its unit `x` for a ratio and empty for a pure number. Without a target it is only
    reported.
    """

    name: str
    title: str
    unit: str
    target: Bound | None = None


@dataclass(frozen=True)
class Measured:
    """What became of one figure.

    The value is in the figure's unit, NaN if it was not measured; the note says how it was where the title does not, or
    why it was not. `details` are JSON-ready values behind it. It is judged where the sizes are those of the target.
    """

    figure: Figure
    value: float
    note: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    judged: bool = True

    @classmethod
    def missing(cls, figure: Figure, reason: str) -> Measured:
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
    """What every measurement is given: where progress is shown, and whether sizes are small and nothing is judged."""

    progress: Progress
    quick: bool = False

    def result(self, figure: Figure, value: float, note: str = "", **details: Any) -> Measured:
        """Return what was found for a figure."""
        return Measured(figure, float(value), note, details, judged=not self.quick)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Make a folder that is there while the context lasts."""
        with temporary_folder("fedmunkey-bench-") as folder:
            yield folder


@dataclass(frozen=True)
class Group:
    """Figures that are measured together: `measure` yields a result for each, in their order.

    Its name is what `--only` takes; `obstacle` says why nothing can be measured, and nothing if it can.
    """

    name: str
    figures: tuple[Figure, ...]
    measure: Callable[[Bench], Iterator[Measured]]
    obstacle: Callable[[], str] = str

    def run(self, bench: Bench) -> list[Measured]:
        """Measure the figures, or give the reason why none of them was measured."""
        if reason := self.obstacle():
            return [Measured.missing(figure, reason) for figure in self.figures]
        return list(self.measure(bench))


def number(value: float) -> str:
    """Write a number with three significant digits, and large ones in full."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
