"""One question of forgetting: a federation, the records that it learns from, and those that it is to forget."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.hospitals import Encoded, Hospital

Rows = Mapping[str, NDArray[np.int64]]
"""For each hospital, by name, ascending positions among its records."""


@dataclass(frozen=True)
class Case:
    """What is learned and what is forgotten.

    Raises `InvalidDeletion` if nothing is forgotten, a record twice, or everything that all hospitals have.

    Attributes
    ----------
    hospitals : sequence of Hospital
        With the records that they begin with, labels as they are learned: a canary's is wrong.
    deletions : sequence of Rows
        What is forgotten, one after the other; training records only, none twice.
    canaries : Rows
        Those of the forgotten records whose label is wrong.
    settings : Settings
        The federation's; with the seed of this case.
    """

    hospitals: Sequence[Hospital]
    deletions: Sequence[Rows]
    canaries: Rows
    settings: Settings
    shape: ModelShape

    def __post_init__(self) -> None:
        asked = sum(len(rows) for deletion in self.deletions for rows in deletion.values())
        if not asked:
            raise InvalidDeletion("nothing is forgotten; ask for a larger forget set")
        if asked != sum(map(len, self.forgotten.values())):
            raise InvalidDeletion("a record is forgotten twice; each may be in one deletion only")
        if not any(len(records.records) for records in self.retained().values()):
            raise InvalidDeletion("forgetting everything leaves nothing to compare with; forget less")

    @cached_property
    def forgotten(self) -> Rows:
        """All that is forgotten."""
        empty = np.empty(0, dtype=np.int64)
        return {
            hospital.name: np.unique(np.concatenate([empty, *(one[hospital.name] for one in self.deletions)]))
            for hospital in self.hospitals
        }

    def everything(self) -> dict[str, Encoded]:
        """Return each hospital's training records."""
        return {hospital.name: hospital.given.split(Split.TRAIN) for hospital in self.hospitals}

    def retained(self) -> dict[str, Encoded]:
        """Return each hospital's training records without the forgotten ones."""
        kept = {}
        for hospital in self.hospitals:
            train = hospital.given.records.splits == Split.TRAIN.value
            train[self.forgotten[hospital.name]] = False
            kept[hospital.name] = hospital.given.select(train)
        return kept

    def forget_records(self) -> dict[str, Encoded]:
        """Return each hospital's forgotten records."""
        return {hospital.name: hospital.given.select(self.forgotten[hospital.name]) for hospital in self.hospitals}

    def with_seed(self, seed: int) -> Case:
        """Return the same question with other first weights and other random choices in training."""
        return replace(self, settings=self.settings.replace(seed=seed))


def fingerprints(records: Encoded) -> frozenset[str]:
    """Return one digest for each record's image and label: the same record under another id is still the same."""
    data = records.records
    return frozenset(
        hashlib.sha256(image.tobytes() + int(label).to_bytes(8, "big")).hexdigest()
        for image, label in zip(data.images, data.labels, strict=True)
    )


def seen_although_forgotten(case: Case, seen: Mapping[str, Encoded]) -> int:
    """Count the forgotten records that are among those that an oracle learned from, by image and label.

    Where a data set holds the same image twice and one of them stays, that one does not count.
    """
    stays = frozenset().union(*(fingerprints(records) for records in case.retained().values()))
    learned = frozenset().union(*(fingerprints(records) for records in seen.values()))
    gone = [fingerprints(records) for records in case.forget_records().values()]
    return len((frozenset().union(*gone) - stays) & learned)
