"""Whole patients: two records each, as the digits have them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedmunkey.client.records.dataset import Consent, Split
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.simulations.federation.hospitals import Hospital
from fedmunkey.simulations.forget_sets.whole_subjects import WholeSubjects
from tests.simulations.given_records import train_rows


def renamed(hospital: Hospital, rows: NDArray[np.int64], subject: str) -> Hospital:
    subjects = hospital.given.records.subject_ids.copy().astype(object)
    subjects[rows] = subject
    return with_columns(hospital, subject_ids=subjects.astype(np.str_))


def donated(hospital: Hospital, row: int) -> Hospital:
    consents = hospital.given.records.consents.copy()
    consents[row] = Consent.PERMANENT.value
    return with_columns(hospital, consents=consents)


def with_columns(hospital: Hospital, **columns: Any) -> Hospital:
    return replace(hospital, given=replace(hospital.given, records=replace(hospital.given.records, **columns)))


@pytest.mark.parametrize("seed", range(5))
def test_subjects_go_whole_until_the_share_is_reached(hospitals: list[Hospital], seed: int) -> None:
    (rows,) = WholeSubjects().draw(hospitals, 0.2, seed).deletions

    for hospital in hospitals:
        subjects = hospital.given.records.subject_ids
        gone = set(subjects[rows[hospital.name]].tolist())
        assert not gone & set(np.delete(subjects, rows[hospital.name]).tolist())
        wanted = round(0.2 * len(train_rows(hospital)))
        assert wanted <= len(rows[hospital.name]) <= wanted + 1


def test_subject_that_two_hospitals_have_leaves_both(hospitals: list[Hospital]) -> None:
    # All that may be forgotten at the first hospital belongs to a subject that the second has too.
    first, second, third = hospitals
    shared = [renamed(first, train_rows(first)[1:], "traveller"), renamed(second, train_rows(second)[:3], "traveller")]

    found = []
    for seed in range(20):
        (rows,) = WholeSubjects().draw([*shared, third], 0.1, seed).deletions
        at_home, away = (
            set(h.given.records.subject_ids[rows[h.name]].tolist()) & {"traveller"} == {"traveller"} for h in shared
        )
        assert at_home == away
        found.append(away)
    assert True in found


def test_subject_with_one_permanent_record_anywhere_stays(hospitals: list[Hospital]) -> None:
    first, second, third = hospitals
    shared = [renamed(first, train_rows(first)[:4], "donor"), renamed(second, train_rows(second)[:1], "donor")]
    shared[1] = donated(shared[1], train_rows(second)[0])

    for seed in range(10):
        (rows,) = WholeSubjects().draw([*shared, third], 0.3, seed).deletions
        for hospital in shared:
            assert "donor" not in hospital.given.records.subject_ids[rows[hospital.name]]


def test_where_subjects_that_may_leave_have_too_few_records_nothing_is_drawn(hospitals: list[Hospital]) -> None:
    train = train_rows(hospitals[0])
    bound = donated(renamed(hospitals[0], train, "everybody"), train[0])

    with pytest.raises(InvalidDeletion, match=r"hospital-1 .* have only 0; forget fewer, or make fewer permanent"):
        WholeSubjects().draw([bound, *hospitals[1:]], 0.2, 0)


def test_last_subject_may_not_take_the_last_record(hospitals: list[Hospital]) -> None:
    alone = renamed(hospitals[0], train_rows(hospitals[0]), "only patient")

    with pytest.raises(InvalidDeletion, match="leaves hospital-1 no training record; forget fewer"):
        WholeSubjects().draw([alone, *hospitals[1:]], 0.2, 0)


def test_held_out_records_of_a_subject_are_not_in_the_deletion(hospitals: list[Hospital]) -> None:
    first = hospitals[0]
    held = np.flatnonzero(first.given.records.splits == Split.TEST.value)
    train = train_rows(first)
    # Whoever is drawn has held-out records.
    both = renamed(renamed(first, np.append(train[:7], held[:5]), "one"), np.append(train[7:], held[5:]), "other")

    (rows,) = WholeSubjects().draw([both, *hospitals[1:]], 0.2, 0).deletions

    assert 0 < len(rows["hospital-1"]) < len(train)
    assert not set(held) & set(rows["hospital-1"].tolist())
