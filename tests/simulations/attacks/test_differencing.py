"""Who has left, to someone who asks before and after."""

from __future__ import annotations

import pytest

from fedmunkey.simulations.attacks import differencing
from fedmunkey.simulations.attacks.attack import Attacked
from fedmunkey.simulations.attacks.differencing import Differencing
from fedmunkey.simulations.federation.case import Case
from tests.simulations.attacks.conftest import Tell
from tests.simulations.given_records import case_of, train_rows


def test_records_that_the_federation_has_become_less_sure_of_have_left(
    case: Case, told: Tell, honest: list[str]
) -> None:
    target = Attacked(state=told({}), before=told(dict.fromkeys(honest, 0.9)))

    scores = Differencing().score(target, case, [])

    assert scores.auroc == 1
    assert scores.members == pytest.approx([0.4] * 4)


def test_where_nothing_changed_nothing_is_found_among_all_that_stay(case: Case, told: Tell, honest: list[str]) -> None:
    state = told(dict.fromkeys(honest, 0.9))

    scores = Differencing().score(Attacked(state, state), case, [])

    assert scores.auroc == 0.5
    assert len(scores.others) == sum(len(records.records) for records in case.retained().values())


def test_hospital_that_left_is_compared_with_those_that_stay(case: Case, told: Tell) -> None:
    gone, *_ = case.hospitals
    left = case_of(case.hospitals, {gone.name: train_rows(gone)}, case.settings, case.shape)
    state = told({})

    assert Differencing().score(Attacked(state, state), left, []).auroc == 0.5


def test_canary_is_on_neither_side(case: Case, told: Tell, canary: str) -> None:
    target = Attacked(state=told({}), before=told({canary: 0.9}))

    scores = Differencing().score(target, case, [])

    assert {*scores.members, *scores.others} == {0}


def test_many_retained_records_are_thinned_and_always_the_same(
    case: Case, told: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(differencing, "_MOST_RETAINED", 3)
    retained = case.retained()[case.hospitals[0].name].records.record_ids
    before = told({str(record): 0.6 + row / 100 for row, record in enumerate(retained)})
    target = Attacked(state=told({}), before=before)

    first, again = (Differencing().score(target, case, []).others for _ in range(2))

    assert len(first) <= 3 * 3
    assert first.tolist() == again.tolist()
