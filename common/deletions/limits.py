"""Limits of what people write that several parts check."""

from __future__ import annotations

REASON_CHARACTERS = 1000


def is_reason(text: str) -> bool:
    """Return whether a text can be kept as a reason: one line that is not too long; it may be empty."""
    return len(text) <= REASON_CHARACTERS and text.isprintable()
