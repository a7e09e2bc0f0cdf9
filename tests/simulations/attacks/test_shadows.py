"""Shadow federations: half of the candidates each, and no other record that the attacked one never saw."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedmunkey.client.records.dataset import Consent, Split
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.simulations.attacks.attack import Attacked
from fedmunkey.simulations.attacks.candidates import Candidates
from fedmunkey.simulations.attacks.likelihood_ratio import LikelihoodRatio
from fedmunkey.simulations.attacks.shadows import forget_in_shadow, shadow_case, train_shadows
from fedmunkey.simulations.federation.answers import Answers
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Encoded, Hospital
from fedmunkey.simulations.unlearning.method import Budget
from fedmunkey.simulations.unlearning.munkey import KeyDeletion, MunkeyFederation
from fedmunkey.simulations.unlearning.plain.nothing import Nothing

COUNT = 4
BUDGET = Budget(rounds=1)


@pytest.fixture
def questions(case: Case) -> list[Case]:
    return [shadow_case(case, number, COUNT) for number in range(COUNT)]


def candidate_ids(case: Case, asked: Candidates, name: str) -> set[str]:
    given = next(hospital.given for hospital in case.hospitals if hospital.name == name)
    return ids_of(given.select(asked.rows(name)))


def learned(question: Case, name: str) -> set[str]:
    return ids_of(question.everything()[name])


def ids_of(records: Encoded) -> set[str]:
    return set(records.records.record_ids.tolist())


def test_each_candidate_is_in_half_of_the_shadows_and_in_one_of_each_pair(
    case: Case, asked: Candidates, questions: list[Case]
) -> None:
    for hospital in case.hospitals:
        among = candidate_ids(case, asked, hospital.name)
        drawn = [learned(question, hospital.name) & among for question in questions]
        assert drawn[0] | drawn[1] == drawn[2] | drawn[3] == among
        assert not drawn[0] & drawn[1]
        assert not drawn[2] & drawn[3]


def test_other_pairs_draw_other_halves(case: Case) -> None:
    drawn = {frozenset(learned(shadow_case(case, pair, 40), case.hospitals[0].name)) for pair in range(0, 40, 2)}

    assert len(drawn) > 1


def test_shadow_learns_from_retained_records_candidates_and_canaries_only(
    case: Case, asked: Candidates, questions: list[Case], canary: str
) -> None:
    for hospital in case.hospitals:
        stays = ids_of(case.retained()[hospital.name])
        planted = {canary} if len(case.canaries[hospital.name]) else set()
        for question in questions:
            assert stays | planted <= learned(question, hospital.name)
            among = candidate_ids(case, asked, hospital.name)
            assert learned(question, hospital.name) <= stays | planted | among
            assert ids_of(question.retained()[hospital.name]) == stays
            assert ids_of(question.forget_records()[hospital.name]) == learned(question, hospital.name) - stays


def test_canaries_are_canaries_in_shadows_too_and_no_members(case: Case, questions: list[Case], canary: str) -> None:
    for question in questions:
        ids = [h.given.records.record_ids[question.canaries[h.name]].tolist() for h in question.hospitals]
        assert ids == [[canary], [], []]

    quick = questions[0].settings.replace(num_rounds=1)
    trained = Nothing().family.train(questions[0].everything(), quick, case.shape)
    shadow = forget_in_shadow(case, questions[0], trained, Nothing(), BUDGET)
    assert not any(canary in members for members in shadow.members.values())


def test_held_out_candidates_become_training_records_that_may_be_withdrawn(case: Case) -> None:
    permanent = [
        replace(h, given=replace(h.given, records=replace(h.given.records, consents=_permanent_held_out(h))))
        for h in case.hospitals
    ]
    question = shadow_case(replace(case, hospitals=permanent), 0, COUNT)

    for forgotten in question.forget_records().values():
        assert set(forgotten.records.splits.tolist()) <= {Split.TRAIN.value}
        assert set(forgotten.records.consents.tolist()) <= {Consent.REVOCABLE.value}
    assert Consent.PERMANENT.value in question.hospitals[0].given.records.consents


def _permanent_held_out(hospital: Hospital) -> NDArray[np.str_]:
    train = hospital.given.records.splits == Split.TRAIN.value
    return np.where(train, Consent.REVOCABLE.value, Consent.PERMANENT.value)


def test_forgotten_records_that_a_shadow_does_not_learn_from_are_not_there(case: Case, questions: list[Case]) -> None:
    gone = {name: ids_of(records) for name, records in case.forget_records().items()}

    for question in questions:
        for hospital in question.hospitals:
            assert ids_of(hospital.given) & gone[hospital.name] <= learned(question, hospital.name)


def test_shadows_have_seeds_of_their_own(case: Case, questions: list[Case]) -> None:
    seeds = {case.settings.seed, *(question.settings.seed for question in questions)}

    assert len(seeds) == COUNT + 1
    assert shadow_case(case, 0, COUNT).settings.seed in seeds


@pytest.mark.parametrize("count", [0, 2, 5])
def test_odd_or_small_count_is_refused(case: Case, count: int) -> None:
    with pytest.raises(InvalidSetting, match=f"^{count} shadows: .*; give an even number of at least 4$"):
        shadow_case(case, 0, count)


def test_deleted_shadow_has_no_candidate_in_its_banks_and_what_it_said_of_them_is_remembered(
    case: Case, asked: Candidates
) -> None:
    method = KeyDeletion(Guarantee.EMPIRICAL)
    question = shadow_case(case, 1, COUNT)
    trained = method.family.train(question.everything(), question.settings, question.shape)

    deleted = method.forget(trained, question, BUDGET).answers
    shadow = forget_in_shadow(case, question, trained, method, BUDGET)

    assert isinstance(deleted, MunkeyFederation)
    for name, held in deleted.record_ids.items():
        among = candidate_ids(case, asked, name)
        assert among & set(trained.record_ids[name].tolist()) == shadow.members[name] == learned(question, name) & among
        assert not among & set(held.tolist())
        assert len(deleted.places[name].bank) == len(held)
    said: list[tuple[Answers, Answers]] = [(shadow.trained, trained), (shadow.deleted, deleted)]
    for hospital in case.hospitals:
        records = hospital.given.select(asked.rows(hospital.name)[::-1].copy())
        for remembered, again in said:
            for ask in ("answer", "weights_alone"):
                first, second = (getattr(one, ask)(hospital.name, records) for one in (remembered, again))
                assert torch.allclose(first, second, atol=1e-6)


def test_all_shadows_can_be_used_for_an_attack_and_make_up_no_answers(case: Case, told: Callable[..., Answers]) -> None:
    method = Nothing()
    quick = case.settings.replace(num_rounds=1)
    case = Case(case.hospitals, case.deletions, case.canaries, quick, case.shape)

    shadows = train_shadows(case, method, COUNT, BUDGET)

    scores = LikelihoodRatio().score(Attacked(told({}), told({})), case, shadows)
    assert len(shadows) == COUNT
    assert not math.isnan(scores.auroc)
    assert np.isfinite(np.concatenate([scores.members, scores.others])).all()
    with pytest.raises(KeyError):
        shadows[0].trained.answer(case.hospitals[0].name, case.retained()[case.hospitals[0].name])
