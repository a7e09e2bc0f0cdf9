"""What a deletion means for the shared weights (DESIGN.md, section 5)."""

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


_REMAINS = {
    Guarantee.EXACT: "nothing: the state is the same as one built without the record",
    Guarantee.CERTIFIED: "at most what (epsilon, delta) allows",
    Guarantee.EMPIRICAL: "its entry is gone; what the shared weights still know is measured, not bounded",
}
