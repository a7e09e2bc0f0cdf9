"""What a table's cells say when they stand for a patient, a record or a class: the same thing is written in many ways.

A spreadsheet makes `12345.0` of 12345 and `1.23457E+12` of a longer number, a file system takes accents apart, and an
empty cell comes out as `nan`. Whoever later asks for a deletion types what is on paper.
"""

from __future__ import annotations

import re
import unicodedata

_MISSING = frozenset(
    {"nan", "na", "n/a", "n.a", "n.a.", "<na>", "#n/a", "#na", "#value!", "#ref!", "nat", "null", "nil", "none"}
    | {"unknown", "unk", "unbekannt", "inconnu", "missing", "undefined", "?", "-", "--", ".", ".."}
)
_WHOLE = re.compile(r"\+?(\d+)[.,]0*")
_ROUNDED = re.compile(r"\d(?:[.,]\d+)?[eE]\+\d{2,}")
_DECIMAL = re.compile(r"[+-]?\d*[.,]?\d+(?:[eE][+-]?\d+)?")


def is_missing(text: str) -> bool:
    """Return whether a cell is empty or holds a word that programs and people write where nothing is known."""
    return not text or text.casefold() in _MISSING


def is_rounded(text: str) -> bool:
    """Return whether a cell holds what a spreadsheet leaves of a long number, whose last digits are lost."""
    return _ROUNDED.fullmatch(text) is not None


def is_number(text: str) -> bool:
    """Return whether a cell holds a number of any kind."""
    return _DECIMAL.fullmatch(text) is not None


def plain_id(text: str) -> str:
    """Return an id as it is typed: with composed characters (Unicode's NFC), a whole number without a fraction."""
    if text.isascii() and not text.endswith(("0", ".", ",")):
        return text
    composed = unicodedata.normalize("NFC", text)
    whole = _WHOLE.fullmatch(composed)
    return whole[1] if whole else composed


def plain_label(text: str) -> str:
    """Return a label's composed characters, or the number that it is, without zeros around it."""
    composed = plain_id(text)
    return str(int(composed)) if composed.isascii() and composed.isdecimal() and len(composed) < 12 else composed
