"""Wrong labels, alone and among honest records."""

from __future__ import annotations

import numpy as np
import pytest

from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.simulations.federation.hospitals import Hospital
from fedmunkey.simulations.forget_sets.canaries import Canaries, mislabelled
from fedmunkey.simulations.forget_sets.forget_set import Drawn
from fedmunkey.simulations.forget_sets.random_records import RandomRecords
from fedmunkey.simulations.forget_sets.random_with_canaries import RandomWithCanaries


def check_labels(hospitals: list[Hospital], drawn: Drawn) -> None:
    """Canaries have another label than they came with, and no other record has."""
    for before, after in zip(hospitals, drawn.hospitals, strict=True):
        changed = np.flatnonzero(before.given.records.labels != after.given.records.labels)
        assert changed.tolist() == drawn.canaries[before.name].tolist()
        assert 0 <= after.given.records.labels.min() <= after.given.records.labels.max() < 10


def test_every_drawn_record_has_a_wrong_label(hospitals: list[Hospital]) -> None:
    drawn = Canaries().draw(hospitals, 0.2, 0)

    check_labels(hospitals, drawn)
    (rows,) = drawn.deletions
    assert {name: some.tolist() for name, some in rows.items()} == {
        name: some.tolist() for name, some in drawn.canaries.items()
    }


def test_wrong_labels_are_of_all_other_classes(hospitals: list[Hospital]) -> None:
    hospital = hospitals[0]
    records = hospital.given.records
    eights = np.flatnonzero(records.labels == records.labels[0])

    wrong = {
        label
        for seed in range(60)
        for label in mislabelled(hospital, {hospital.name: eights}, seed).given.records.labels[eights].tolist()
    }

    assert wrong == set(range(10)) - {int(records.labels[0])}


@pytest.mark.parametrize(("share", "canaries"), [(0.5, 6), (0.07, 2)])
def test_a_fifth_of_the_random_records_and_at_least_two_are_canaries_and_leave_room_for_honest_ones(
    hospitals: list[Hospital], share: float, canaries: int
) -> None:
    drawn = RandomWithCanaries().draw(hospitals, share, 0)

    check_labels(hospitals, drawn)
    (rows,) = drawn.deletions
    (random,) = RandomRecords().draw(hospitals, share, 0).deletions
    assert all(rows[name].tolist() == some.tolist() for name, some in random.items())
    assert sum(map(len, drawn.canaries.values())) == max(2, round(sum(map(len, rows.values())) / 5)) == canaries
    with pytest.raises(InvalidDeletion, match=r"too few for 2 canaries .*; forget a larger share"):
        RandomWithCanaries().draw(hospitals[:1], 0.06, 0)
