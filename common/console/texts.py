"""All that a console says, in each language: one TOML file a language, with the same keys."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

LANGUAGES = {"en": "English", "de": "Deutsch"}
"""Languages and their own names; the first is spoken to whoever asks for none of them."""

_FOLDER = Path(__file__).with_name("texts")


@dataclass(frozen=True)
class Texts:
    """One language's texts, by dotted keys such as `inbox.title`."""

    language: str
    said: Mapping[str, str]

    @classmethod
    @cache
    def of(cls, language: str) -> Texts:
        """Return the texts of one of `LANGUAGES`."""
        with (_FOLDER / f"{language}.toml").open("rb") as file:
            return cls(language, dict(_flat(tomllib.load(file))))

    def __call__(self, key: str, /, **values: object) -> str:
        """Return a text with its values; what has two forms is said in the one that `count` asks for.

        Raises `KeyError` for a key that nobody has written.
        """
        chosen = key if key in self.said else f"{key}.{'one' if values.get('count') == 1 else 'other'}"
        return self.said[chosen].format(**values)


def language_for(accepted: str) -> str:
    """Return the first of `LANGUAGES` that an `Accept-Language` header names, English if it names none."""
    for part in accepted.split(","):
        named = part.split(";")[0].strip().lower().partition("-")[0]
        if named in LANGUAGES:
            return named
    return next(iter(LANGUAGES))


def _flat(table: Mapping[str, Any], above: str = "") -> Any:
    for name, value in table.items():
        key = f"{above}{name}"
        if isinstance(value, dict):
            yield from _flat(value, f"{key}.")
        else:
            yield key, str(value)
