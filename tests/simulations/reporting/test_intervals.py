"""Means over seeds with the intervals that Student's t gives."""

from __future__ import annotations

import math

import pytest

from fedmunkey.simulations.reporting.intervals import Interval


@pytest.mark.parametrize(
    ("values", "mean", "half", "shown"),
    [
        # Student's t for 95% is 12.706 with one degree of freedom, 4.303 with two and 2.776 with four.
        ([1.0, 3.0], 2.0, 12.7062 * math.sqrt(2) / math.sqrt(2), "2.0 ± 12.7"),
        ([80.0, 82.0, 84.0], 82.0, 4.30265 * 2 / math.sqrt(3), "82.0 ± 5.0"),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 3.0, 2.77645 * math.sqrt(2.5) / math.sqrt(5), "3.0 ± 2.0"),
        ([7.0, 7.0], 7.0, 0.0, "7.0 ± 0.0"),
    ],
)
def test_interval_is_students(values: list[float], mean: float, half: float, shown: str) -> None:
    interval = Interval.of(values)

    assert (interval.mean, interval.half) == pytest.approx((mean, half), abs=1e-4)
    assert str(interval) == shown


@pytest.mark.parametrize(("values", "shown"), [([81.26], "81.3"), ([], "-"), ([math.nan, 80.0], "-")])
def test_without_two_values_there_is_no_interval(values: list[float], shown: str) -> None:
    interval = Interval.of(values)

    assert math.isnan(interval.half)
    assert str(interval) == shown
