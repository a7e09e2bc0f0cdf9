"""Records drawn at random."""

from __future__ import annotations

from simulations.forget_sets.random_records import RandomRecords
from simulations.hospitals import Hospital


def test_positions_ascend_and_none_comes_twice(hospitals: list[Hospital]) -> None:
    (rows,) = RandomRecords().draw(hospitals, 0.5, 0).deletions

    for some in rows.values():
        assert (some[1:] > some[:-1]).all()
