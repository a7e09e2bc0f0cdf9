"""Means over seeds with their 95% intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from fedmunkey.common.programs.command_line import finite


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, half the width of its 95% interval (Student's t; NaN from one seed), and the values."""

    mean: float
    half: float
    values: tuple[float, ...] = field(default=(), compare=False)

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """Summarise one value for each seed."""
        count = len(values)
        if count < 2 or not np.isfinite(values).all():
            return cls(float(np.mean(values)) if count else math.nan, math.nan, tuple(values))
        half = stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / math.sqrt(count)
        return cls(float(np.mean(values)), float(half), tuple(values))

    def __str__(self) -> str:
        """Return the mean and the interval with one decimal."""
        return self.text(1)

    def text(self, digits: int) -> str:
        """Return the mean and the interval with some decimals."""
        if math.isnan(self.mean):
            return "-"
        mean = f"{self.mean:.{digits}f}"
        return mean if math.isnan(self.half) else f"{mean} ± {self.half:.{digits}f}"


def interval_document(interval: Interval) -> dict[str, Any]:
    """Return a mean, half its interval and the values behind it; None where a number is not known."""
    values = [finite(value) for value in interval.values]
    return {"mean": finite(interval.mean), "half": finite(interval.half), "values": values}
