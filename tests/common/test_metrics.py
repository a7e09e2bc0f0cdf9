from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from common.metrics import accuracy, confidence, macro_f1, membership_auroc


def sure(classes: list[int], count: int = 3) -> Tensor:
    """Return predictions that are sure of some classes."""
    return torch.nn.functional.one_hot(torch.tensor(classes, dtype=torch.int64), count).float()


def labels(*classes: int) -> Tensor:
    return torch.tensor(classes, dtype=torch.int64)


def test_accuracy_is_the_share_of_right_predictions() -> None:
    assert accuracy(sure([0, 1, 2, 2]), labels(0, 1, 2, 0)) == 0.75


def test_f1_counts_each_class_alike() -> None:
    # Class 0: precision 1, recall 3/4; class 1: precision 1/2, recall 1.
    assert macro_f1(sure([0, 0, 0, 1, 1]), labels(0, 0, 0, 0, 1)) == pytest.approx((6 / 7 + 2 / 3) / 2)


def test_class_that_is_neither_predicted_nor_present_does_not_count() -> None:
    assert macro_f1(sure([0, 1]), labels(0, 1)) == 1.0


def test_class_that_is_never_predicted_counts_as_missed() -> None:
    assert macro_f1(sure([0, 0]), labels(0, 1)) == pytest.approx(1 / 3)


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


def test_auroc_needs_both_sides() -> None:
    assert math.isnan(membership_auroc(np.array([]), np.array([0.5])))
    assert math.isnan(membership_auroc(np.array([0.5]), np.array([])))
