"""What deletions and departures have left, and whether the last weights are those of it and of nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.closed_form.release import Release
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.hospitals import Hospital
from fedmunkey.simulations.federation.solved_federation import solve_records
from fedmunkey.simulations.run.changes import Timeline
from fedmunkey.simulations.run.plan import ResolvedDeletion, forget_rows


def what_is_left(
    hospitals: Sequence[Hospital], plan: Sequence[ResolvedDeletion], timeline: Timeline, number: int
) -> tuple[list[Hospital], dict[str, NDArray[np.int64]]]:
    """Return the hospitals that are there in a round, with the records that have come to them by then.

    And, for each, the positions among these of the records that the plan has erased.
    """
    left, forgotten = [], {}
    for place, (hospital, gone) in enumerate(zip(hospitals, forget_rows(plan, len(hospitals)), strict=True)):
        if timeline.is_there(place, number):
            held = np.flatnonzero(timeline.holds(place, number))
            left.append(replace(hospital, given=hospital.given.select(held)))
            forgotten[hospital.name] = np.flatnonzero(np.isin(held, gone))
    return left, forgotten


def same_weights(
    weights: Release,
    hospitals: Sequence[Hospital],
    forgotten: Mapping[str, NDArray[np.int64]],
    settings: Settings,
    shape: ModelShape,
) -> bool:
    """Return whether weights have the same bytes as those of a federation that never had anything else.

    Solved for here, from what the hospitals were given without what was forgotten: no key store is asked.
    """
    kept = {}
    for hospital in hospitals:
        rows = hospital.given.records.splits == Split.TRAIN.value
        rows[forgotten[hospital.name]] = False
        kept[hospital.name] = hospital.given.select(rows)
    return solve_records(kept, settings, shape).release.digest() == weights.digest()
