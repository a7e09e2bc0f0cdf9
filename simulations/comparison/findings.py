"""What a comparison shows: intervals over seeds, and who wins."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedmunkey.simulations.comparison.cell import Outcome
from fedmunkey.simulations.guarantee_table import Interval
from fedmunkey.simulations.unlearning.registry import METHODS

CLOSE = 1.0
"""Points of test accuracy that count as equally good."""

_MUNKEY = "munkey-"


@dataclass(frozen=True)
class Column:
    """One figure of a method.

    Attributes
    ----------
    name, title, unit : str
        In tables, what it means, and what it is counted in.
    better : str
        `higher`, `lower`, `oracle` (the nearer the oracle the better) or `none`.
    digits : int
        Decimals shown.
    of : callable
        Finds it in an outcome.
    """

    name: str
    title: str
    unit: str
    better: str
    digits: int
    of: Callable[[Outcome], float]


COLUMNS: tuple[Column, ...] = (
    Column("TA", "test accuracy, mean over hospitals", "%", "higher", 1, lambda one: one.after.test_accuracy),
    Column("RA", "accuracy on records that stay", "%", "oracle", 1, lambda one: one.after.retain_accuracy),
    Column(
        "FA",
        "accuracy on forgotten records, canaries left out",
        "%",
        "oracle",
        1,
        lambda one: one.after.forget_accuracy,
    ),
    Column(
        "oracle's FA",
        "the same of the family's oracle, which never saw them",
        "%",
        "none",
        1,
        lambda one: one.oracle.forget_accuracy,
    ),
    Column(
        "MIA",
        "AUROC of telling forgotten records from test records by the confidence in their labels",
        "% AUROC",
        "oracle",
        1,
        lambda one: one.after.membership,
    ),
    Column(
        "TPR",
        "true positives of that attack at 1% false positives",
        "%",
        "oracle",
        1,
        lambda one: one.after.membership_tpr,
    ),
    Column(
        "canaries",
        "forgotten records with a wrong label that still get it",
        "%",
        "oracle",
        1,
        lambda one: one.after.canary_recall,
    ),
    Column(
        "oracle's canaries", "the same of the oracle, by chance", "%", "none", 1, lambda one: one.oracle.canary_recall
    ),
    Column(
        "weights alone",
        "AUROC of the attack where only the shared weights are asked, no bank",
        "% AUROC",
        "oracle",
        1,
        lambda one: one.after.weights_membership,
    ),
    Column(
        "Average Gap",
        "mean absolute difference to the oracle in TA, RA, FA and MIA",
        "points",
        "lower",
        1,
        lambda one: one.gap,
    ),
    Column(
        "by chance",
        "the same difference between two oracles of different seeds",
        "points",
        "none",
        1,
        lambda one: one.chance,
    ),
    Column(
        "seconds to forget",
        "with one thread; for MUNKEY the slowest hospital",
        "s",
        "lower",
        3,
        lambda one: one.forget_seconds,
    ),
    Column("seconds to train", "the federation before it forgets", "s", "none", 1, lambda one: one.train_seconds),
    Column(
        "MB to forget",
        "sent to and from all hospitals in order to forget",
        "MB",
        "lower",
        1,
        lambda one: one.bytes_sent / 1e6,
    ),
)
"""The figures of the comparison, in the order of its tables."""

_BY_NAME = {column.name: column for column in COLUMNS}


@dataclass(frozen=True)
class SetFindings:
    """All outcomes on one data set."""

    data: str
    outcomes: Sequence[Outcome]

    @property
    def methods(self) -> list[str]:
        """Those that were tried, in the registry's order."""
        tried = {outcome.method for outcome in self.outcomes}
        return [name for name in METHODS if name in tried]

    def interval(self, method: str, column: str) -> Interval:
        """Summarise one figure of a method over the seeds."""
        mine = sorted((one for one in self.outcomes if one.method == method), key=lambda one: one.seed)
        return Interval.of([_BY_NAME[column].of(one) for one in mine])

    def best(self, column: str, methods: Sequence[str], *, highest: bool) -> str | None:
        """Return the method with the best mean; None if none has one."""
        means = {name: self.interval(name, column).mean for name in methods}
        known = {name: mean for name, mean in means.items() if not math.isnan(mean)}
        if not known:
            return None
        return max(known, key=lambda name: known[name]) if highest else min(known, key=lambda name: known[name])

    @property
    def munkey(self) -> str | None:
        """The guarantee with the smallest Average Gap."""
        return self.best("Average Gap", [name for name in self.methods if name.startswith(_MUNKEY)], highest=False)

    @property
    def won(self) -> bool:
        """Whether a guarantee has the smallest Average Gap of all that do not retrain, at an accuracy near the best."""
        mine, closest, best = self._contest()
        return mine is not None and mine == closest and self._behind(mine, best) <= CLOSE

    def sentences(self) -> list[str]:
        """Say who wins and who loses, in plain words."""
        mine, closest, best = self._contest()
        if mine is None or closest is None or best is None:
            return [f"{self.data}: no MUNKEY guarantee was compared with anything."]
        gap = self._title_and(closest, "Average Gap", "points")
        found = []
        if mine == closest:
            found.append(f"{self.data}: {gap} has the smallest Average Gap of all methods that do not retrain.")
        else:
            own = self._title_and(mine, "Average Gap", "points")
            found.append(f"{self.data}: {gap} has a smaller Average Gap than {own}, and does not retrain either.")
        behind = self._behind(mine, best)
        accuracy = self._title_and(best, "TA", "%")
        judged = "within" if behind <= CLOSE else "not within"
        found.append(
            f"{self.data}: the most accurate method is {accuracy}; {METHODS[mine].title} is {behind:.1f} points "
            f"behind, {judged} {CLOSE:g} point."
        )
        return found

    def _contest(self) -> tuple[str | None, str | None, str | None]:
        """Return MUNKEY's best guarantee, whoever has the smallest gap without retraining, and the most accurate.

        Without anything but guarantees there is no contest, and the first is None.
        """
        free = [name for name in self.methods if not METHODS[name].retrains]
        rivals = any(not name.startswith(_MUNKEY) for name in self.methods)
        mine, closest = self.munkey if rivals else None, self.best("Average Gap", free, highest=False)
        return mine, closest, self.best("TA", self.methods, highest=True)

    def _behind(self, method: str, best: str | None) -> float:
        if best is None:
            return math.nan
        return self.interval(best, "TA").mean - self.interval(method, "TA").mean

    def _title_and(self, method: str, column: str, unit: str) -> str:
        return f"{METHODS[method].title} ({self.interval(method, column)} {unit})"
