from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmunkey.common.service.foreign_text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Müller & Söhne 日本", "Müller & Söhne 日本"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b[92mINFO\x1b[0m: on", "INFO: on"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("left\u202eright\u2066\x00\x9b", "left\\u202eright\\u2066\\x00\\x9b"),
        ("\ud800", "\\ud800"),
        ("\x1b[\x1b[0m2J", "\\x1b[2J"),
    ],
)
def test_what_is_not_read_is_written_as_its_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_whatever_comes_is_one_printable_line(text: str) -> None:
    assert printable(text).isprintable()
