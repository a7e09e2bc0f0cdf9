"""The catalogue: every language says everything, with the same values, and nothing that nobody asks for."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest

from fedmunkey.common.console.texts import LANGUAGES, Texts, language_for

ROOT = Path(__file__).parents[3]
ROOMS = [ROOT / "common" / "console", ROOT / "client" / "console", ROOT / "server" / "console"]
KEY = re.compile(r"""["']([a-z]+\.[a-z0-9-]+)["'](?!\s*~)""")
BEGINNING = re.compile(r"""["']([a-z]+\.(?:[a-z-]+-)?)["']\s*~""")


def values_of(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def sources() -> str:
    files = [path for room in ROOMS for suffix in ("*.html", "*.py") for path in room.rglob(suffix)]
    return "\n".join(path.read_text() for path in files)


@pytest.mark.parametrize("language", list(LANGUAGES))
def test_language_says_all_that_english_says_with_the_same_values(language: str) -> None:
    english, other = Texts.of("en").said, Texts.of(language).said

    assert other.keys() == english.keys()
    differing = [key for key in english if values_of(english[key]) != values_of(other[key])]
    assert differing == []


def test_german_is_not_english_left_over() -> None:
    english, german = Texts.of("en").said, Texts.of("de").said
    same = {key for key in english if len(english[key].split()) > 2 and english[key] == german[key]}

    assert same == set()


def test_every_text_that_a_page_asks_for_is_there_and_none_is_left_over() -> None:
    written = sources()
    known = {re.sub(r"\.(one|other)$", "", key) if key.count(".") > 1 else key for key in Texts.of("en").said}
    sections = {key.partition(".")[0] for key in known}
    asked = {key for key in KEY.findall(written) if key.partition(".")[0] in sections and not key.endswith(".html")}
    # Some are put together: what they begin with, and whatever follows.
    beginnings = {begin for begin in BEGINNING.findall(written) if begin.partition(".")[0] in sections}

    assert asked - known == set()
    assert {begin for begin in beginnings if not any(key.startswith(begin) for key in known)} == set()
    assert {key for key in known - asked if not key.startswith(tuple(beginnings))} == set()


def test_number_of_one_is_said_in_the_singular() -> None:
    assert Texts.of("en")("time.days", count=1) == "1 day"
    assert Texts.of("de")("time.days", count=2) == "2 Tage"
    with pytest.raises(KeyError):
        Texts.of("en")("inbox.no-such-text")


@pytest.mark.parametrize(
    ("accepted", "language"),
    [("de-DE,de;q=0.9,en;q=0.8", "de"), ("fr, en;q=0.5", "en"), ("", "en"), ("xx", "en"), ("DE", "de")],
)
def test_browser_is_answered_in_its_language(accepted: str, language: str) -> None:
    assert language_for(accepted) == language
