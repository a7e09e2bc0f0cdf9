"""What names have in common that a person may take for the same, and that classes need names apart."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from fedmunkey.common.errors import InvalidInput


def likeness(text: str) -> str:
    """Return what ids and labels have in common that a person may take for the same."""
    folded = re.sub(r"\s", "", unicodedata.normalize("NFKC", text)).casefold()
    return folded.lstrip("0") or folded


def check_class_names(names: Sequence[str], whose: str) -> None:
    """Check that each class has a name of its own, however it is written; raises `InvalidInput`."""
    if len({likeness(name) for name in names}) != len(names) or any(not name.strip() for name in names):
        raise InvalidInput(f"{whose} a name twice, or an empty one; every class needs its own")
