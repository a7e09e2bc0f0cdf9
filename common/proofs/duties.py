"""What the holder of a key may do in its office: ask, agree, or only look."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Duty(StrEnum):
    """One thing that somebody may do; whoever may do any of them may look."""

    FILE = "file"
    """Ask for deletions, and give instructions about records."""
    APPROVE = "approve"
    """Agree as another person to what somebody asks for, and end instructions."""
    VIEW = "view"
    """Look."""


EVERY_DUTY = frozenset(Duty)
"""What a key may do that was never narrowed."""


def duties_of(named: Iterable[Duty]) -> frozenset[Duty]:
    """Return what somebody may do of whom some duties are named: looking is always among them."""
    return frozenset({*named, Duty.VIEW})


def duty_words(duties: frozenset[Duty]) -> str:
    """Return duties for people, in one order."""
    return ", ".join(duty for duty in Duty if duty in duties)
