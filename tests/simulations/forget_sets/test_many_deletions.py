"""One deletion after the other."""

from __future__ import annotations

import numpy as np
import pytest

from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.simulations.federation.hospitals import Hospital
from fedmunkey.simulations.forget_sets.random_records import RandomRecords
from fedmunkey.simulations.forget_sets.registry import SEQUENCES

TEN, FIFTY = SEQUENCES


def test_random_records_leave_in_ten_deletions_across_hospitals(hospitals: list[Hospital]) -> None:
    deletions = TEN.draw(hospitals, 0.4, 0).deletions

    sizes = [sum(map(len, rows.values())) for rows in deletions]
    assert len(sizes) == 10
    assert max(sizes) - min(sizes) <= 1
    (random,) = RandomRecords().draw(hospitals, 0.4, 0).deletions
    for name, rows in random.items():
        assert np.sort(np.concatenate([one[name] for one in deletions])).tolist() == rows.tolist()
    assert any(sum(len(some) > 0 for some in rows.values()) > 1 for rows in deletions)
    with pytest.raises(InvalidDeletion, match="too few for 10 deletions; forget a larger share"):
        TEN.draw(hospitals, 0.1, 0)


def test_fifty_deletions_need_fifty_records(hospitals: list[Hospital]) -> None:
    with pytest.raises(InvalidDeletion, match="too few for 50 deletions; forget a larger share"):
        FIFTY.draw(hospitals, 0.4, 0)
