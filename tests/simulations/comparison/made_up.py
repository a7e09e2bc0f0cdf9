"""Outcomes with figures that a test chooses."""

from __future__ import annotations

from fedmunkey.simulations.comparison.cell import Outcome
from fedmunkey.simulations.federation.measurement import Measurement


def measurement(accuracy: float = 80.0, *, forget: float = 80.0) -> Measurement:
    """Return a measurement of which TA and FA are chosen."""
    return Measurement(accuracy, 90.0, forget, 50.0, 70.0, (0.5, 0.6), (0.4,), 1.0, 50.0, 10.0)


def outcome(method: str, seed: int, *, after: float = 80.0, forget: float = 80.0, seconds: float = 1.0) -> Outcome:
    """Return an outcome whose Average Gap is a fourth of how far FA and TA lie from 80."""
    return Outcome(
        method,
        seed,
        before=measurement(forget=95.0),
        after=measurement(after, forget=forget),
        oracle=measurement(),
        chance=0.5,
        train_seconds=10.0,
        forget_seconds=seconds,
        bytes_sent=2_000_000,
    )
