from __future__ import annotations

import unicodedata

import pytest

from fedmunkey.client.importing.identifiers import is_rounded, plain_id
from fedmunkey.common.settings.likeness import likeness

APART = unicodedata.normalize("NFD", "Müller-1")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("12345", "12345"),
        ("12345.0", "12345"),
        ("12345,00", "12345"),
        ("00123", "00123"),
        ("00123.0", "00123"),
        ("1.2.840.0", "1.2.840.0"),
        ("scan-1.0", "scan-1.0"),
        ("0.5", "0.5"),
        (APART, "Müller-1"),
        ("Müller-1", "Müller-1"),
    ],
)
def test_id_is_read_as_it_is_typed(text: str, plain: str) -> None:
    assert plain_id(text) == plain


@pytest.mark.parametrize(
    ("text", "rounded"), [("1.23457E+12", True), ("1,2E+10", True), ("1E+12", True), ("12E3", False)]
)
def test_number_that_lost_its_digits_is_known(text: str, rounded: bool) -> None:
    assert is_rounded(text) is rounded


def test_what_looks_alike_is_alike() -> None:
    assert likeness("P 7") == likeness("p7")
    assert likeness("00123") == likeness("123")
    assert likeness("0") != likeness("")
    assert likeness("123") != likeness("124")
