"""What a comparison shows: intervals over seeds, and who wins."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.simulations.comparison.cell import Outcome
from fedmunkey.simulations.reporting.intervals import Interval
from fedmunkey.simulations.unlearning.method import Method
from fedmunkey.simulations.unlearning.munkey import MunkeyFamily, SolvedFamily
from fedmunkey.simulations.unlearning.registry import METHODS

CLOSE = 1.0
"""Points of test accuracy that count as equally good."""

TOLERANCE = 2.0
"""Points of test accuracy that a stronger guarantee may cost."""


@dataclass(frozen=True)
class Column:
    """One figure of a method: what it means, how it is found, and in which unit.

    `better` is `higher`, `lower`, `oracle` (the nearer the oracle the better) or `none`; `digits` are decimals shown.
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
    Column(
        "TA",
        "test accuracy for the federation's case mix, mean over hospitals",
        attrgetter("after.test_accuracy"),
        "higher",
    ),
    Column("own mix", "the same for each hospital's own case mix", attrgetter("after.own_accuracy"), "higher"),
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
    Column(
        "MB to train",
        "sent to and from all hospitals in order to train",
        lambda one: one.training_bytes / 1e6,
        "lower",
        "MB",
    ),
    Column(
        "same bytes",
        "how often weights, keys and tokens are the oracle's, byte by byte",
        lambda one: 100 * one.identical,
        "none",
        digits=0,
    ),
    Column(
        "epsilon",
        "a record's privacy loss at the delta of the settings, rounded up; unknown where nothing bounds it",
        # A bound must not look smaller than it is.
        lambda one: one.epsilon if math.isnan(one.epsilon) else math.ceil(100 * one.epsilon) / 100,
        "none",
        unit="",
        digits=2,
    ),
)
"""The figures of the comparison, in the order of its tables."""

PATHWAYS: tuple[Column, ...] = (
    Column("image alone", "test accuracy without any memory", attrgetter("after.image_accuracy"), "none"),
    Column("memory alone", "test accuracy without the image", attrgetter("after.memory_accuracy"), "none"),
    Column(
        "sensitivity",
        "(memory alone - image alone) / (memory alone + image alone)",
        attrgetter("after.sensitivity"),
        "none",
        unit="",
        digits=2,
    ),
)
"""What each of a MUNKEY model's pathways knows by itself; a preset of the paper shows them."""

_BY_NAME = {column.name: column for column in (*COLUMNS, *PATHWAYS)}


@dataclass(frozen=True)
class SetFindings:
    """All outcomes on one data set, of some of the methods that are known by name."""

    data: str
    outcomes: Sequence[Outcome]
    known: Mapping[str, Method[Any]] = field(default_factory=lambda: METHODS)

    @property
    def methods(self) -> list[str]:
        """Those that were tried, in the order in which they are known."""
        tried = {outcome.method for outcome in self.outcomes}
        return [name for name in self.known if name in tried]

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
        return self.best("Average Gap", [name for name in self.methods if self._is_munkey(name)], highest=False)

    @property
    def contested(self) -> bool:
        """Whether a guarantee was compared with anything else."""
        return len({self._is_munkey(name) for name in self.methods}) == 2

    @property
    def won(self) -> bool:
        """Whether a guarantee has the smallest Average Gap of all that do not retrain, at an accuracy near the best."""
        mine, closest, best = self.munkey, self._closest, self._most_accurate
        return self.contested and mine == closest and mine is not None and self._behind(mine, best) <= CLOSE

    @property
    def advice(self) -> Guarantee | None:
        """The strongest guarantee whose mean test accuracy is within `TOLERANCE` points of the best guarantee's."""
        means = {one: self.interval(name, "TA").mean for one in Guarantee if (name := f"munkey-{one}") in self.methods}
        close = (one for one, mean in means.items() if mean >= max(means.values()) - TOLERANCE)
        return next(close, None)

    def sentences(self) -> list[str]:
        """Say who wins and who loses, or which guarantee to take, in plain words."""
        closest, best, advice = self._closest, self._most_accurate, self.advice
        if self.contested and self.munkey is not None and closest is not None and best is not None:
            return self._won_and_lost(self.munkey, closest, best)
        if advice is not None:
            return [
                f"{self.data}: take {advice}, the strongest guarantee that costs at most {TOLERANCE:g} points of test "
                f"accuracy here. What remains of a deleted record: {advice.remains}."
            ]
        found = []
        if closest is not None:
            gap = self._title_and(closest, "Average Gap", "points")
            found.append(f"{self.data}: {gap} has the smallest Average Gap.")
        if best is not None:
            found.append(f"{self.data}: the most accurate is {self._title_and(best, 'TA', '%')}.")
        return found

    def _won_and_lost(self, mine: str, closest: str, best: str) -> list[str]:
        gap = self._title_and(closest, "Average Gap", "points")
        found = []
        if mine == closest:
            equals = [self.known[name].title for name in self._free if name != mine and self._as_close(name, mine)]
            too = f", and {'; '.join(equals)} {'has' if len(equals) == 1 else 'have'} as small a one" if equals else ""
            found.append(f"{self.data}: {gap} has the smallest Average Gap of all methods that do not retrain{too}.")
        else:
            own = self._title_and(mine, "Average Gap", "points")
            found.append(f"{self.data}: {gap} has a smaller Average Gap than {own}, and does not retrain either.")
        behind = self._behind(mine, best)
        accuracy = self._title_and(best, "TA", "%")
        judged = "within" if behind <= CLOSE else "not within"
        found.append(
            f"{self.data}: the most accurate method is {accuracy}; {self.known[mine].title} is {behind:.1f} points "
            f"behind, {judged} {CLOSE:g} point."
        )
        return found

    @property
    def _closest(self) -> str | None:
        """Whoever has the smallest Average Gap without retraining."""
        return self.best("Average Gap", self._free, highest=False)

    @property
    def _free(self) -> list[str]:
        """Those that do not retrain."""
        return [name for name in self.methods if not self.known[name].retrains]

    def _as_close(self, method: str, other: str) -> bool:
        """Say whether two have the same Average Gap in the digits that are shown."""
        return f"{self.interval(method, 'Average Gap').mean:.1f}" == f"{self.interval(other, 'Average Gap').mean:.1f}"

    @property
    def _most_accurate(self) -> str | None:
        return self.best("TA", self.methods, highest=True)

    def _is_munkey(self, method: str) -> bool:
        return isinstance(self.known[method].family, SolvedFamily | MunkeyFamily)

    def _behind(self, method: str, best: str | None) -> float:
        if best is None:
            return math.nan
        return self.interval(best, "TA").mean - self.interval(method, "TA").mean

    def _title_and(self, method: str, column: str, unit: str) -> str:
        return f"{self.known[method].title} ({self.interval(method, column)} {unit})"
