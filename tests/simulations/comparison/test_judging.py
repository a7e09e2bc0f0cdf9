"""Answers are judged by records that count more or less."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedmunkey.simulations.comparison.judging import judge

SAID = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.8, 0.2]])
LABELS = np.array([0, 0, 1, 1])


def test_each_record_counts_with_its_weight() -> None:
    even = judge(SAID, LABELS, np.ones(4))
    uneven = judge(SAID, LABELS, np.array([1.0, 1.0, 1.0, 5.0]))

    assert (even.accuracy, uneven.accuracy) == (75, 37.5)
    assert even.balanced_accuracy == uneven.balanced_accuracy == 75
    assert even.loss == pytest.approx(-np.log([0.9, 0.6, 0.7, 0.2]).mean())
    assert uneven.loss == pytest.approx(-np.log([0.9, 0.6, 0.7, *[0.2] * 5]).mean())
    # Of class 0 two thirds of those answered so, and all that are; of class 1 all answered so, and half that are.
    assert even.macro_f1 == pytest.approx(100 * (0.8 + 2 / 3) / 2)
    # Of the four pairs of one record of each class, three are in order.
    assert even.auroc == 75


def test_calibration_compares_confidence_with_hits_bin_by_bin() -> None:
    sure = np.array([[0.81, 0.19], [0.82, 0.18], [0.51, 0.49]])

    found = judge(sure, np.array([0, 1, 0]), np.ones(3))

    # The first two are in one bin, of which one is right.
    assert found.calibration == pytest.approx(100 * (abs(1.63 - 1) + abs(0.51 - 1)) / 3)


def test_records_that_do_not_count_are_not_there() -> None:
    some = judge(SAID, LABELS, np.array([1.0, 1.0, 0.0, 0.0]))

    assert (some.accuracy, some.balanced_accuracy) == (100, 100)
    assert math.isnan(some.auroc)
