"""Numbers are shown with the digits that count and the unit that suits them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fedmunkey.simulations.reporting import numerals


@pytest.mark.parametrize(
    ("mean", "half", "digits", "factor", "shown"),
    [
        (82.94, 0.61, 1, 1, "82.9 ± 0.6"),
        (82.94, None, 1, 1, "82.9"),
        (None, None, 1, 1, "–"),
        (0.5136, 0.0041, 3, 1, "0.514 ± 0.004"),
        (0.0126, 0.004, 1, 100, "1.3 ± 0.4"),
        (-0.01, 0.0, 1, 1, "0.0 ± 0.0"),
    ],
)
def test_interval_is_a_mean_and_its_half_width(
    mean: float | None, half: float | None, digits: int, factor: float, shown: str
) -> None:
    assert numerals.interval({"mean": mean, "half": half, "values": []}, digits, factor) == shown


@pytest.mark.parametrize(
    ("form", "value", "shown"),
    [
        (numerals.figure, None, "–"),
        (numerals.figure, 12345, "12,345"),
        (numerals.figure, 51.43, "51.4"),
        (numerals.figure, 1.304, "1.30"),
        (numerals.figure, 0.51432, "0.514"),
        (numerals.seconds, 0.0213, "21.3 ms"),
        (numerals.seconds, 111.96, "112 s"),
        (numerals.seconds, 600, "10 min"),
        (numerals.seconds, 9000, "2.5 h"),
        (numerals.seconds, None, "–"),
        (numerals.size, 0, "0 bytes"),
        (numerals.size, 1480, "1.48 kB"),
        (numerals.size, 183_000_000, "183 MB"),
        (numerals.share, 0.1, "10%"),
        (numerals.times, 5331.4, "5,300 times"),
        (numerals.times, 1.52, "1.5 times"),
        (numerals.plain, True, "true"),
        (numerals.plain, 1e-05, "1e-05"),
        (numerals.plain, "", "(empty)"),
    ],
)
def test_number_reads_well(form: Callable[[Any], str], value: Any, shown: str) -> None:
    assert form(value) == shown
