"""Of which records an attacker asks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedmunkey.client.records.dataset import Split
from fedmunkey.simulations.attacks.candidates import Candidates, candidates
from fedmunkey.simulations.federation.case import Case


def held_out(case: Case) -> list[str]:
    """The held-out candidates of all hospitals."""
    others = candidates(case).others
    return [str(r) for h in case.hospitals for r in h.given.records.record_ids[others[h.name]]]


def test_members_are_forgotten_records_without_canaries_and_each_hospital_has_as_many_others(
    case: Case, asked: Candidates
) -> None:
    first, second, third = (hospital.name for hospital in case.hospitals)

    assert asked.members[first].tolist() == case.forgotten[first][1:].tolist()
    assert asked.members[second].tolist() == case.forgotten[second].tolist()
    assert not len(asked.members[third])
    assert {name: len(rows) for name, rows in asked.others.items()} == {first: 2, second: 2, third: 0}


def test_held_out_record_is_a_candidate_at_one_hospital_only_and_the_seed_chooses(case: Case) -> None:
    assert len(set(held_out(case))) == len(held_out(case)) == 4
    assert held_out(case) == held_out(replace(case))
    assert held_out(case) != held_out(case.with_seed(7))


def test_validation_records_come_before_test_records(case: Case, asked: Candidates) -> None:
    splits = {split for h in case.hospitals for split in h.given.records.splits[asked.others[h.name]].tolist()}

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
