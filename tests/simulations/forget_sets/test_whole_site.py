"""A hospital that leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.consent import donate
from fedmunkey.simulations.federation.hospitals import Hospital
from fedmunkey.simulations.forget_sets.whole_site import LeavingSite
from fedmunkey.simulations.unlearning.method import Budget
from fedmunkey.simulations.unlearning.munkey import KeyDeletion


def test_one_hospital_loses_all_its_training_records_whatever_the_consent(hospitals: list[Hospital]) -> None:
    given = [replace(h, given=replace(h.given, records=donate(h.given.records, 1.0, 0))) for h in hospitals]

    (rows,) = LeavingSite().draw(given, 0.01, 0).deletions

    (gone,) = (hospital for hospital in given if len(rows[hospital.name]))
    train = gone.given.records.splits == Split.TRAIN.value
    assert rows[gone.name].tolist() == train.nonzero()[0].tolist()


def test_each_hospital_may_be_the_one(hospitals: list[Hospital]) -> None:
    drawn = [LeavingSite().draw(hospitals, 0.1, seed).deletions[0] for seed in range(20)]

    assert {name for rows in drawn for name, some in rows.items() if len(some)} == {h.name for h in hospitals}


def test_only_hospital_with_records_cannot_leave(hospitals: list[Hospital]) -> None:
    empty = replace(hospitals[1], given=hospitals[1].given.split(Split.TEST))

    with pytest.raises(InvalidDeletion, match=r"1 hospitals have training records, .* among 2 hospitals or more"):
        LeavingSite().draw([hospitals[0], empty], 0.1, 0)


def test_hospital_that_left_still_answers(hospitals: list[Hospital], settings: Settings, shape: ModelShape) -> None:
    drawn = LeavingSite().draw(hospitals, 0.1, 0)
    case = Case(drawn.hospitals, drawn.deletions, drawn.canaries, settings.replace(num_rounds=1), shape)
    method = KeyDeletion(Guarantee.EMPIRICAL)

    left = method.forget(method.family.train(case.everything(), case.settings, shape), case, Budget(rounds=1)).answers

    (gone,) = (hospital for hospital in hospitals if len(case.forgotten[hospital.name]))
    assert gone.name not in left.sites
    assert left.answer(gone.name, gone.given).shape == (len(gone.given.records), 10)
