from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fedmunkey.common.model.metrics import accuracy, confidence, macro_f1, membership_auroc, true_positives


def sure(classes: list[int], count: int = 3) -> Tensor:
    """Return predictions that are sure of some classes."""
    return torch.nn.functional.one_hot(torch.tensor(classes, dtype=torch.int64), count).float()


def labels(*classes: int) -> Tensor:
    return torch.tensor(classes, dtype=torch.int64)


def test_accuracy_is_the_share_of_right_predictions() -> None:
    assert accuracy(sure([0, 1, 2, 2]), labels(0, 1, 2, 0)) == 0.75


@pytest.mark.parametrize(
    ("answers", "truth", "expected"),
    [
        # Class 0: precision 1, recall 3/4; class 1: precision 1/2, recall 1. Class 2 does not count.
        ([0, 0, 0, 1, 1], [0, 0, 0, 0, 1], (6 / 7 + 2 / 3) / 2),
        ([0, 1], [0, 1], 1.0),
        # A class that is never predicted counts as missed.
        ([0, 0], [0, 1], 1 / 3),
    ],
)
def test_f1_counts_each_class_that_is_predicted_or_present_alike(
    answers: list[int], truth: list[int], expected: float
) -> None:
    assert macro_f1(sure(answers), labels(*truth)) == pytest.approx(expected)


@pytest.mark.parametrize("metric", [accuracy, macro_f1])
def test_no_predictions_have_no_score(metric: object) -> None:
    assert callable(metric)
    assert math.isnan(metric(torch.empty(0, 3), labels()))


def test_confidence_is_what_the_true_label_got() -> None:
    given = torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]])

    found = confidence(given, labels(2, 1))

    assert found.dtype == np.float64
    assert np.allclose(found, [0.7, 0.25])


@pytest.mark.parametrize(
    ("members", "others", "expected"),
    [([0.9, 0.8], [0.1, 0.2], 1.0), ([0.1, 0.2], [0.9, 0.8], 0.0), ([0.5] * 3, [0.5] * 2, 0.5), ([3, 1], [2, 0], 0.75)],
)
def test_auroc_is_the_chance_that_a_member_is_more_confident(
    members: list[float], others: list[float], expected: float
) -> None:
    assert membership_auroc(np.array(members, dtype=float), np.array(others, dtype=float)) == pytest.approx(expected)


def hundred(*highest: float) -> list[float]:
    """Return a hundred others, of which all but some are at zero."""
    return [*highest, *[0.0] * (100 - len(highest))]


@pytest.mark.parametrize(
    ("members", "others", "allowed", "expected"),
    [
        # One of a hundred may be taken for a member: the threshold is the second highest.
        ([0.8, 0.6, 0.4, 0.2], hundred(0.9, 0.5), 0.01, 0.5),
        ([0.8, 0.6, 0.4, 0.2], hundred(0.9, 0.7, 0.5), 0.02, 0.5),
        # Fewer than a hundred: not one may.
        ([0.8, 0.6, 0.4, 0.95], hundred(0.9, 0.5)[:99], 0.01, 0.25),
        ([0.8], [0.9], 0.01, 0.0),
        # 1.9 of 190 others are one.
        ([0.6], [0.9, 0.7, *[0.0] * 188], 0.01, 0.0),
        # Members as high as the threshold cannot be told from the others there.
        ([0.5, 0.5, 0.6], hundred(0.9, 0.5), 0.01, 1 / 3),
        ([0.5] * 3, [0.5] * 200, 0.01, 0.0),
        # Two others share the highest place; letting in one lets in both.
        ([0.9, 0.95], hundred(0.9, 0.9), 0.01, 0.5),
        ([0.1, 0.2], [0.5, 0.6], 0.0, 0.0),
        ([0.1, 0.2], [0.5, 0.6], 1.0, 1.0),
    ],
)
def test_true_positives_are_members_above_all_but_few_others(
    members: list[float], others: list[float], allowed: float, expected: float
) -> None:
    found = true_positives(np.array(members, dtype=float), np.array(others, dtype=float), allowed)

    assert found == pytest.approx(expected)
    assert found == true_positives(np.array(members[::-1], dtype=float), np.array(others[::-1], dtype=float), allowed)


@pytest.mark.parametrize(("members", "others"), [([], [0.5]), ([0.5], [])])
def test_telling_members_apart_needs_both_sides(members: list[float], others: list[float]) -> None:
    assert math.isnan(membership_auroc(np.array(members), np.array(others)))
    assert math.isnan(true_positives(np.array(members), np.array(others), 0.01))
