"""Of which records an attacker asks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedmunkey.client.records.dataset import Split
from fedmunkey.simulations.attacks.candidates import candidates
from fedmunkey.simulations.federation.case import Case


def held_out(case: Case) -> list[str]:
    """The held-out candidates of all hospitals."""
    others = candidates(case).others
    return [str(r) for h in case.hospitals for r in h.given.records.record_ids[others[h.name]]]


def test_members_are_forgotten_records_without_canaries(case: Case) -> None:
    first, second, third = (hospital.name for hospital in case.hospitals)

    members = candidates(case).members

    assert members[first].tolist() == case.forgotten[first][1:].tolist()
    assert members[second].tolist() == case.forgotten[second].tolist()
    assert not len(members[third])


def test_each_hospital_has_as_many_others_as_members(case: Case) -> None:
    asked = candidates(case)

    assert {name: len(rows) for name, rows in asked.others.items()} == {
        name: len(rows) for name, rows in asked.members.items()
    }


def test_held_out_record_is_a_candidate_at_one_hospital_only(case: Case) -> None:
    assert len(set(held_out(case))) == len(held_out(case)) == 4


def test_validation_records_come_before_test_records(case: Case) -> None:
    others = candidates(case).others

    splits = {split for h in case.hospitals for split in h.given.records.splits[others[h.name]].tolist()}
    assert splits == {Split.VAL.value}


def test_where_held_out_records_run_out_hospitals_share_what_there_is(case: Case) -> None:
    few = [replace(h, given=h.given.select(_without_most_held_out(h.given.records.splits))) for h in case.hospitals]

    others = candidates(replace(case, hospitals=few)).others

    # One validation and two test records for four members.
    assert sorted(map(len, others.values())) == [0, 1, 2]


def _without_most_held_out(splits: np.ndarray) -> np.ndarray:
    # Training records keep their places: held-out ones stand behind them.
    kept = splits == Split.TRAIN.value
    kept[np.flatnonzero(splits == Split.VAL.value)[:1]] = True
    kept[np.flatnonzero(splits == Split.TEST.value)[:2]] = True
    return np.flatnonzero(kept)


def test_seed_chooses_and_decides(case: Case) -> None:
    assert held_out(case) == held_out(replace(case))
    assert held_out(case) != held_out(case.with_seed(7))
