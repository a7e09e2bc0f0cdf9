"""Text from elsewhere, as it may be shown and logged: what another machine says, a decoded path, a library's words."""

from __future__ import annotations

import re

_COLOUR = re.compile("\x1b\\[[0-9;]*m")


def printable(text: str) -> str:
    """Return a text as one line that does nothing but be read.

    Whatever would end a line, move a cursor, or hide or turn around what stands beside it, is written as Python's
    escape of it; colours are left out.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in _COLOUR.sub("", text)
    )
