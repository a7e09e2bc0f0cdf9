"""What loss thresholds find, with and without banks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedmunkey.simulations.attacks.attack import Attack, Attacked
from fedmunkey.simulations.attacks.loss_threshold import LossThreshold
from fedmunkey.simulations.attacks.weights_only import WeightsOnly
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.measurement import measure
from tests.simulations.attacks.conftest import Tell


@pytest.fixture(params=[LossThreshold(), WeightsOnly()], ids=lambda attack: attack.name)
def attack(request: pytest.FixtureRequest) -> Attack:
    chosen: Attack = request.param
    return chosen


def test_federation_that_is_sure_of_forgotten_records_only_is_found_out(
    attack: Attack, case: Case, told: Tell, honest: list[str]
) -> None:
    sure = dict.fromkeys(honest, 0.9)
    state = told(sure, sure)

    scores = attack.score(Attacked(state, state), case, [])

    assert scores.auroc == 1
    assert scores.true_positives == 1
    assert scores.members == pytest.approx([math.log(0.9)] * 4)


def test_federation_that_is_as_sure_of_all_gives_nothing_away(attack: Attack, case: Case, told: Tell) -> None:
    state = told({})

    scores = attack.score(Attacked(state, state), case, [])

    assert scores.auroc == 0.5
    # Asked where records are forgotten: the third hospital forgets nothing, and has the same 20 test records.
    assert len(scores.others) == 2 * 20


def test_label_without_any_probability_has_a_finite_score(attack: Attack, case: Case, told: Tell) -> None:
    state = told({}, otherwise=0.0)

    assert np.isfinite(attack.score(Attacked(state, state), case, []).members).all()


def test_canary_does_not_count(attack: Attack, case: Case, told: Tell, honest: list[str], canary: str) -> None:
    sure = {canary: 0.01}
    state = told(sure, sure)

    scores = attack.score(Attacked(state, state), case, [])

    assert len(scores.members) == len(honest)
    assert scores.auroc == 0.5


def test_bank_and_weights_are_attacked_apart(case: Case, told: Tell, honest: list[str]) -> None:
    only_bank, only_weights = told(dict.fromkeys(honest, 0.9)), told({}, dict.fromkeys(honest, 0.9))

    found = [
        [attack.score(Attacked(state, state), case, []).auroc for attack in (LossThreshold(), WeightsOnly())]
        for state in (only_bank, only_weights)
    ]

    assert found == [[1, 0.5], [0.5, 1]]


def test_measurement_has_the_same_figure(case: Case, told: Tell, honest: list[str]) -> None:
    sure = dict(zip(honest, (0.2, 0.5, 0.7, 0.9), strict=True))
    state = told(sure, sure)

    scores = LossThreshold().score(Attacked(state, state), case, [])

    measured = measure(state, case.hospitals, case.forgotten, case.forgotten, case.canaries)
    assert 100 * scores.auroc == pytest.approx(measured.membership)
    assert 100 * scores.true_positives == pytest.approx(measured.membership_tpr)
