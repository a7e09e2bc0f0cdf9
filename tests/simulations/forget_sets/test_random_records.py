"""Records drawn at random."""

from __future__ import annotations

from fedmunkey.simulations import guarantees
from fedmunkey.simulations.forget_sets.random_records import RandomRecords
from fedmunkey.simulations.hospitals import Hospital


def test_records_are_those_that_the_comparison_of_guarantees_forgets(hospitals: list[Hospital]) -> None:
    (rows,) = RandomRecords().draw(hospitals, 0.2, 3).deletions

    for hospital in hospitals:
        assert rows[hospital.name].tolist() == guarantees._draw_forgotten(hospital, 0.2, 3).tolist()


def test_positions_ascend_and_none_comes_twice(hospitals: list[Hospital]) -> None:
    (rows,) = RandomRecords().draw(hospitals, 0.5, 0).deletions

    for some in rows.values():
        assert (some[1:] > some[:-1]).all()
