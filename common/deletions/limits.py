"""Limits of what people write, and members sign, that several parts check."""

from __future__ import annotations

LINE_CHARACTERS = 1000


def is_line(text: str, most: int = LINE_CHARACTERS) -> bool:
    """Return whether a text may be signed, logged and shown: one printable line, not too long; it may be empty.

    A line break in it would look like a line of whoever shows it.
    """
    return len(text) <= most and text.isprintable()
