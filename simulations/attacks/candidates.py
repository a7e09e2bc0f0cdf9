"""The records of which an attacker with shadow federations asks: forgotten ones and, beside them, held-out ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.model.randomness import derive_seed
from fedmunkey.simulations.attacks.asking import honest_rows
from fedmunkey.simulations.federation.case import Case, Rows
from fedmunkey.simulations.federation.hospitals import Hospital


@dataclass(frozen=True)
class Candidates:
    """The records of which an attacker asks whether they were learned from.

    Members are forgotten records without canaries; others are held-out ones, as many where there are enough, none at
    two hospitals.
    """

    members: Rows
    others: Rows

    def rows(self, site: str) -> NDArray[np.int64]:
        """Return the ascending positions of all candidates among a hospital's records."""
        return np.union1d(self.members[site], self.others[site])


def candidates(case: Case) -> Candidates:
    """Return the candidates of a case: always the same for the same forget set and seed.

    Hospitals share the held-out splits, so they choose in turn, from shuffled `val` records first and then from `test`,
    until each has as many as honest forgotten records or nothing is left.
    """
    members = honest_rows(case)
    queues = {hospital.name: _held_out(hospital, case.settings.seed) for hospital in case.hospitals}
    record_ids = {hospital.name: hospital.given.records.record_ids for hospital in case.hospitals}
    others: dict[str, list[int]] = {name: [] for name in queues}
    taken: set[str] = set()
    for turn in range(max(map(len, members.values()), default=0)):
        for name, queue in queues.items():
            free = (row for row in queue if record_ids[name][row] not in taken)
            if turn < len(members[name]) and (row := next(free, None)) is not None:
                others[name].append(row)
                taken.add(record_ids[name][row])
    return Candidates(members, {name: np.sort(np.array(rows, dtype=np.int64)) for name, rows in others.items()})


def _held_out(hospital: Hospital, seed: int) -> list[int]:
    """Return the positions of held-out records, shuffled in each split, in the same order at every hospital."""
    records = hospital.given.records
    rows: list[int] = []
    for split in (Split.VAL, Split.TEST):
        held = np.flatnonzero(records.splits == split.value)
        order = np.random.default_rng(derive_seed(seed, "held-out candidates", split.value)).permutation(len(held))
        rows += held[order].tolist()
    return rows
