"""What a comparison shows: intervals over seeds, and who wins."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from simulations.comparison.cell import Outcome
from simulations.guarantee_table import Interval
from simulations.unlearning.registry import METHODS

CLOSE = 1.0
"""Points of test accuracy that count as equally good."""

_MUNKEY = "munkey-"


@dataclass(frozen=True)
class Column:
    """One figure of a method: its name in tables, what it means, where an `Outcome` has it, and how it is shown.

    `better` is `higher`, `lower`, `oracle` (the nearer the oracle the better) or `none`.
    """

    name: str
    title: str
    of: Callable[[Outcome], float]
    better: str = "oracle"
    unit: str = "%"
    digits: int = 1


_MIA = "AUROC of telling forgotten records from test records by the confidence in their labels"
_WEIGHTS = "AUROC of the attack where only the shared weights are asked, no bank"
COLUMNS: tuple[Column, ...] = (
    Column("TA", "test accuracy, mean over hospitals", attrgetter("after.test_accuracy"), "higher"),
    Column("RA", "accuracy on records that stay", attrgetter("after.retain_accuracy")),
    Column("FA", "accuracy on forgotten records, canaries left out", attrgetter("after.forget_accuracy")),
    Column(
        "oracle's FA",
        "the same of the family's oracle, which never saw them",
        attrgetter("oracle.forget_accuracy"),
        "none",
    ),
    Column("MIA", _MIA, attrgetter("after.membership"), unit="% AUROC"),
    Column("TPR", "true positives of that attack at 1% false positives", attrgetter("after.membership_tpr")),
    Column("canaries", "forgotten records with a wrong label that still get it", attrgetter("after.canary_recall")),
    Column("oracle's canaries", "the same of the oracle, by chance", attrgetter("oracle.canary_recall"), "none"),
    Column("weights alone", _WEIGHTS, attrgetter("after.weights_membership"), unit="% AUROC"),
    Column(
        "Average Gap",
        "mean absolute difference to the oracle in TA, RA, FA and MIA",
        attrgetter("gap"),
        "lower",
        "points",
    ),
    Column(
        "by chance",
        "the same difference between two oracles of different seeds",
        attrgetter("chance"),
        "none",
        "points",
    ),
    Column(
        "seconds to forget",
        "with one thread; for MUNKEY the slowest hospital",
        attrgetter("forget_seconds"),
        "lower",
        "s",
        3,
    ),
    Column("seconds to train", "the federation before it forgets", attrgetter("train_seconds"), "none", "s"),
    Column(
        "MB to forget",
        "sent to and from all hospitals in order to forget",
        lambda one: one.bytes_sent / 1e6,
        "lower",
        "MB",
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
