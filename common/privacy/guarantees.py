"""What a deletion means for the shared weights (`docs/architecture.md`, Guarantees)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Guarantee(StrEnum):
    """The three guarantees, strongest first. Every deletion, receipt, report and answer names one of them."""

    EXACT = "exact"
    CERTIFIED = "certified"
    EMPIRICAL = "empirical"

    @property
    def remains(self) -> str:
        """What remains of a deleted record, in words for a report."""
        return _REMAINS[self]

    @classmethod
    def weakest(cls, guarantees: Iterable[Guarantee]) -> Guarantee:
        """Return what may be claimed where each of some guarantees holds for a part; `EXACT` for no part at all."""
        return max(guarantees, key=list(cls).index, default=cls.EXACT)


_REMAINS = {
    Guarantee.EXACT: "nothing: the state is the same as one built without the record",
    Guarantee.CERTIFIED: "at most what (epsilon, delta) allows",
    Guarantee.EMPIRICAL: "its entry is gone; what the shared weights still know is measured, not bounded",
}


class Influence(StrEnum):
    """What the shared weights that left a site may hold of a record, least first."""

    NONE = "none"
    BOUNDED = "bounded"
    UNBOUNDED = "unbounded"

    @property
    def guarantee(self) -> Guarantee:
        """The strongest guarantee that the deletion of such a record may claim."""
        return _STRONGEST[self]


_STRONGEST = {
    Influence.NONE: Guarantee.EXACT,
    Influence.BOUNDED: Guarantee.CERTIFIED,
    Influence.UNBOUNDED: Guarantee.EMPIRICAL,
}


@dataclass(frozen=True)
class PrivacyLoss:
    """How far the shared weights may tell that some records of one subject took part (Dwork and Roth 2014, def. 2.4).

    `epsilon` bounds the logarithm of the likelihood ratio, 0 being perfect privacy and `inf` none; `delta` is the
    probability with which the bound may fail; `records` of the subject are meant together.
    """

    epsilon: float
    delta: float
    records: int = 1

    def to_document(self) -> dict[str, float | int | None]:
        """Return the loss JSON-ready; an epsilon of null is no bound, JSON has no infinity."""
        epsilon = self.epsilon if math.isfinite(self.epsilon) else None
        return {"epsilon": epsilon, "delta": self.delta, "records": self.records}
