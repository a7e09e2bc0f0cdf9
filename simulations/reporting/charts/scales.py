"""From numbers to places on a drawing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Maps an interval of numbers to one of places; what lies outside is put on its nearer end.

    Attributes
    ----------
    low, high : float
        Smallest and largest number that are shown.
    start, end : float
        Where these are, in units of the drawing.
    warp : callable
        Applied to numbers first: `math.log10` for a logarithmic scale.
    """

    low: float
    high: float
    start: float
    end: float
    warp: Callable[[float], float] = float

    def __call__(self, value: float) -> float:
        """Return where a number is."""
        low, high = self.warp(self.low), self.warp(self.high)
        part = (self.warp(min(max(value, self.low), self.high)) - low) / (high - low)
        return self.start + part * (self.end - self.start)


def round_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return at most so many multiples of 1, 2 or 5 times a power of ten within an interval."""
    smallest = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(step for times in (1, 2, 5, 10, 20) if (high - low) / (step := times * smallest) < most)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Return the powers of ten within an interval."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    return [10.0**power for power in range(first, last + 1)]


def decade_below(value: float) -> float:
    """Return the largest power of ten that is not above a positive number."""
    return float(10.0 ** math.floor(math.log10(value) + 1e-9))


def decade_above(value: float) -> float:
    """Return the smallest power of ten that is not below a positive number."""
    return float(10.0 ** math.ceil(math.log10(value) - 1e-9))
