"""Trials of the guarantees as a table for people and as JSON: means over seeds with 95% intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from rich.table import Table
from scipy import stats

from fedmunkey.common.command_line import loss_words
from fedmunkey.common.guarantees import Guarantee, PrivacyLoss
from fedmunkey.simulations.guarantees import Trial
from fedmunkey.simulations.json_values import finite_only

TOLERANCE = 2.0
"""Points of test accuracy that a stronger guarantee may cost."""


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


_COLUMNS: dict[str, Callable[[Trial], float]] = {
    "TA %": lambda trial: trial.forgotten.test_accuracy,
    "RA %": lambda trial: trial.forgotten.retain_accuracy,
    "FA %": lambda trial: trial.forgotten.forget_accuracy,
    "oracle's FA %": lambda trial: trial.oracle.forget_accuracy,
    "MIA %": lambda trial: trial.forgotten.membership,
    "Average Gap": lambda trial: trial.gap,
    "by chance": lambda trial: trial.chance,
    "training s": lambda trial: trial.seconds,
    "MB sent": lambda trial: trial.bytes_sent / 1e6,
}


@dataclass(frozen=True)
class Findings:
    """All trials of one comparison."""

    trials: Sequence[Trial]

    def of(self, guarantee: Guarantee) -> list[Trial]:
        """Return one guarantee's trials."""
        return [trial for trial in self.trials if trial.guarantee is guarantee]

    @property
    def guarantees(self) -> list[Guarantee]:
        """Those that were tried, strongest first."""
        return [guarantee for guarantee in Guarantee if self.of(guarantee)]

    def interval(self, guarantee: Guarantee, column: str) -> Interval:
        """Summarise one column of `table`."""
        return Interval.of([_COLUMNS[column](trial) for trial in self.of(guarantee)])

    @property
    def advice(self) -> Guarantee:
        """The strongest guarantee whose mean test accuracy is within `TOLERANCE` points of the best."""
        means = {guarantee: self.interval(guarantee, "TA %").mean for guarantee in self.guarantees}
        return next(guarantee for guarantee, mean in means.items() if mean >= max(means.values()) - TOLERANCE)

    @property
    def advice_line(self) -> str:
        """The advice and its reason, for people."""
        return (
            f"Take {self.advice}: the strongest guarantee that costs at most {TOLERANCE:g} points of test accuracy "
            f"here. What remains of a deleted record: {self.advice.remains}."
        )

    def table(self) -> Table:
        """Return the guarantees side by side."""
        seeds = len({trial.seed for trial in self.trials})
        over = f"mean of {seeds} seeds ± 95% interval" if seeds > 1 else "one seed"
        table = Table(title=f"After deletion, {over}", title_justify="left")
        table.add_column("")
        for guarantee in self.guarantees:
            table.add_column(guarantee.value, justify="right", no_wrap=True)
        rows = {column: [str(self.interval(one, column)) for one in self.guarantees] for column in _COLUMNS}
        rows["TA % without noise"] = [self._without_noise(one) for one in self.guarantees]
        rows["same bytes as oracle"] = [_words(self.of(one)) for one in self.guarantees]
        delta = max(trial.delta for trial in self.trials)
        rows[f"epsilon, delta = {delta:.3g}" if delta else "epsilon"] = [
            _bound(self.of(one)) for one in self.guarantees
        ]
        for heading, cells in rows.items():
            table.add_row(heading, *cells)
        return table

    def document(self) -> dict[str, Any]:
        """Return everything as JSON-ready values; what is infinite or not a number is None."""
        summary = {
            guarantee.value: {
                "summary": {column: asdict(self.interval(guarantee, column)) for column in _COLUMNS},
                "epsilon": max(trial.epsilon for trial in self.of(guarantee)),
                "identical": all(trial.identical for trial in self.of(guarantee)),
                "trials": [_describe(trial) for trial in self.of(guarantee)],
            }
            for guarantee in self.guarantees
        }
        found: dict[str, Any] = finite_only(
            {"guarantees": summary, "tolerance": TOLERANCE, "advice": self.advice.value}
        )
        return found

    def _without_noise(self, guarantee: Guarantee) -> str:
        return str(Interval.of([trial.without_noise for trial in self.of(guarantee)]))


def _words(trials: Sequence[Trial]) -> str:
    same = sum(trial.identical for trial in trials)
    return "always" if same == len(trials) else "never" if not same else f"{same} of {len(trials)}"


def _bound(trials: Sequence[Trial]) -> str:
    worst = max(trials, key=lambda trial: trial.epsilon)
    return loss_words(PrivacyLoss(worst.epsilon, worst.delta))


def _describe(trial: Trial) -> dict[str, Any]:
    described = asdict(trial)
    for name in ("forgotten", "oracle", "other_oracle"):
        described[name].pop("forget_confidence")
    described["guarantee"] = trial.guarantee.value
    return {**described, "average_gap": trial.gap, "gap_by_chance": trial.chance}
