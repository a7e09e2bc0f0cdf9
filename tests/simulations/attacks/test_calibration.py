"""How far answers are from the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedmunkey.simulations.attacks.attack import Attacked
from fedmunkey.simulations.attacks.calibration import Calibration, brier
from fedmunkey.simulations.federation.case import Case
from tests.simulations.attacks.conftest import Tell


def test_records_that_are_answered_nearer_to_the_truth_are_told(case: Case, told: Tell, honest: list[str]) -> None:
    knows, forgot = told(dict.fromkeys(honest, 0.9)), told({})

    assert Calibration().score(Attacked(knows, knows), case, []).auroc == 1
    assert Calibration().score(Attacked(forgot, forgot), case, []).auroc == 0.5


def test_brier_score_by_hand(case: Case) -> None:
    some = case.hospitals[0].given.select(np.array([0, 1]))
    said = torch.zeros(2, some.records.num_classes)
    said[0, some.records.labels[0]] = 1.0
    said[1, some.records.labels[1]], said[1, (some.records.labels[1] + 1) % 10] = 0.25, 0.75

    assert brier(said, some) == pytest.approx([0, 0.75**2 + 0.75**2])
