"""The likelihood ratio on numbers that can be checked by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.simulations.attacks import likelihood_ratio
from fedmunkey.simulations.attacks.attack import Attacked, Shadow
from fedmunkey.simulations.attacks.candidates import Candidates
from fedmunkey.simulations.attacks.likelihood_ratio import LikelihoodRatio, log_likelihood_ratios
from fedmunkey.simulations.federation.case import Case
from tests.simulations.attacks.conftest import Tell

INSIDE = np.array([[True, False], [True, False], [False, True], [False, True]])


@pytest.mark.parametrize("own", [False, True])
def test_ratio_by_hand_has_variances_of_its_own_for_each_record_with_many_shadows(
    monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    monkeypatch.setattr(likelihood_ratio, "_ENOUGH_SHADOWS", 4 if own else 5)
    # First record: in 1 and 3, out -1 and 1. Second: in 0 and 2, out 0 and 1.
    shadowed = np.array([[1.0, 0.0], [3.0, 1.0], [-1.0, 0.0], [1.0, 2.0]])

    ratios = log_likelihood_ratios(np.array([1.0, 1.0]), shadowed, INSIDE)

    # Pooled over two records with two shadows each: in (1 + 1 + 1 + 1) / 2 = 2, out (1 + 1 + 1/4 + 1/4) / 2 = 1.25.
    outside = (2, 0.5) if own else (1.25, 1.25)
    expected = [
        norm.logpdf(1, 2, math.sqrt(2)) - norm.logpdf(1, 0, math.sqrt(outside[0])),
        norm.logpdf(1, 1, math.sqrt(2)) - norm.logpdf(1, 0.5, math.sqrt(outside[1])),
    ]
    assert ratios == pytest.approx(expected)


def test_shadows_that_all_say_the_same_leave_nothing_to_tell() -> None:
    assert log_likelihood_ratios(np.array([0.0, 5.0]), np.ones((4, 2)), INSIDE).tolist() == [0, 0]


@pytest.mark.parametrize("inside", [INSIDE[:3], INSIDE[:0], np.ones((4, 2), dtype=bool)])
def test_too_few_shadows_are_refused(inside: NDArray[np.bool_]) -> None:
    with pytest.raises(InvalidSetting, match=f"{len(inside)} shadows are too few: .*; train 4 or more"):
        log_likelihood_ratios(np.zeros(2), np.zeros(inside.shape), inside)


# In a federation: in a shadow a record is believed if it was learned from.

Sure = Mapping[str, float]


@pytest.fixture
def shadows(case: Case, asked: Candidates, told: Tell) -> list[Shadow]:
    """Four shadows that are sure of what they learned from, and have forgotten all about it afterwards."""
    made = []
    for number in range(4):
        sure: dict[str, float] = {}
        members = {}
        for hospital in case.hospitals:
            ids = hospital.given.records.record_ids[asked.rows(hospital.name)].tolist()
            members[hospital.name] = frozenset(ids[number % 2 :: 2])
            # Shadows differ a little, each record in another way.
            sure |= {record: (0.9 if record in members[hospital.name] else 0.3) + number / 100 for record in ids}
        doubt = dict.fromkeys(sure, 0.3 + number / 100)
        made.append(Shadow(told(sure), told(doubt), members))
    return made


def test_federation_that_answers_as_those_who_learned_is_found_out(
    case: Case, told: Tell, honest: list[str], shadows: list[Shadow]
) -> None:
    before = told(dict.fromkeys(honest, 0.9), otherwise=0.3)

    scores = LikelihoodRatio().score(Attacked(before, before), case, shadows)

    assert scores.auroc == 1
    assert (scores.members > 0).all()
    assert (scores.others < 0).all()


def test_federation_before_deletion_is_compared_with_shadows_before_theirs(
    case: Case, told: Tell, honest: list[str], shadows: list[Shadow]
) -> None:
    state = told(dict.fromkeys(honest, 0.9), otherwise=0.3)
    as_if_forgotten = Attacked(state, before=told({}))

    scores = LikelihoodRatio().score(as_if_forgotten, case, shadows)

    # Deleted shadows that learned from a record answer as those that did not, give or take how shadows differ.
    assert np.abs(scores.others).max() < 3
    before = LikelihoodRatio().score(Attacked(state, state), case, shadows)
    assert np.abs(before.others).min() > 3


def test_only_candidates_are_asked_about_and_canaries_are_none(
    case: Case, told: Tell, honest: list[str], canary: str, shadows: list[Shadow], asked: Candidates
) -> None:
    state = told({canary: 0.99})

    scores = LikelihoodRatio().score(Attacked(state, state), case, shadows)

    assert len(scores.members) == len(honest)
    assert len(scores.others) == sum(map(len, asked.others.values()))
    assert len({*scores.members, *scores.others}) < len(honest) + len(scores.others)
