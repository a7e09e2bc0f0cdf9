"""The held-out records that a site's evaluations are about: its own, or those that simulated sites share.

Simulated sites would hold many copies of the same records. These lie once in a folder, read-only, which a site's folder
names in a file; where a site has no such file, as no deployed one has, its held-out records are those of its key store.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.learning.bank import Bank, HeldOut, read_held_out
from fedmunkey.client.learning.contribution import read_numbered
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.closed_form.feature_map import FeatureMap, Numbers
from fedmunkey.common.errors import KeyStoreError
from fedmunkey.common.model.neighbours import nearest

_LINK = "held-out.json"
_BLOCK = 2048
_KEYS, _INPUTS, _LABELS, _SUBJECTS, _SPLITS = "keys.npy", "inputs.npy", "labels.npy", "subjects.npy", "splits.npy"


@dataclass(frozen=True)
class NumberedHeldOut:
    """Held-out records as a feature map reads them: (n, size) numbers and (n,) labels."""

    numbers: Numbers
    labels: NDArray[np.int64]


class OwnHeldOut:
    """The held-out records of a site's key store."""

    def numbered(self, store: KeyStore, split: Split, read: FeatureMap) -> NumberedHeldOut:
        """Return the records of a split, as a feature map reads them."""

        def find(_generation: int) -> NumberedHeldOut:
            parts = list(read_numbered(store, read, split))
            numbers = np.concatenate([np.empty((0, read.size)), *(part.numbers for part in parts)])
            return NumberedHeldOut(numbers, np.concatenate([np.empty(0, np.int64), *(part.labels for part in parts)]))

        return store.until_unchanged(find)

    def with_neighbours(self, store: KeyStore, split: Split, bank: Bank, neighbours: int) -> HeldOut:
        """Return the records of a split with their neighbours; raises `BankChanged` if entries were deleted since."""
        return read_held_out(store, split, bank, neighbours)


@dataclass(frozen=True)
class SharedHeldOut:
    """One of `parts` shares of the records in a folder; in each round it is another one, all of them in turn."""

    folder: Path
    part: int
    parts: int
    round_number: int = 0

    @staticmethod
    def write(
        folder: Path,
        splits: NDArray[np.str_],
        labels: NDArray[np.int64],
        subjects: list[bytes],
        keys: NDArray[np.float32],
        inputs: NDArray[np.generic],
    ) -> None:
        """Write n records, with the references of their subjects, (n, key_size) keys and (n, *input_shape) inputs."""
        folder.mkdir(parents=True, exist_ok=True)
        references = np.frombuffer(b"".join(subjects), np.uint8).reshape(len(subjects), -1)
        arrays: dict[str, NDArray[Any]] = {
            **{_SPLITS: splits, _LABELS: labels, _SUBJECTS: references},
            **{_KEYS: keys, _INPUTS: inputs},
        }
        for name, array in arrays.items():
            np.save(folder / name, array, allow_pickle=False)

    def link(self, site: Path) -> None:
        """Have a site's evaluations be about this share."""
        said = {"folder": str(self.folder), "part": self.part, "parts": self.parts}
        (site / _LINK).write_text(json.dumps(said), encoding="utf-8")

    def numbered(self, store: KeyStore, split: Split, read: FeatureMap) -> NumberedHeldOut:
        """Return the share's records of a split, as a feature map reads them."""
        rows = self._rows(store, split)
        labels = _array(self.folder, _LABELS)[rows]
        if self.parts == 1:
            return NumberedHeldOut(_all_numbers(self.folder, read)[rows].astype(np.float64), labels)
        keys, inputs = (np.asarray(_array(self.folder, name)[rows], np.float32) for name in (_KEYS, _INPUTS))
        return NumberedHeldOut(read.read(keys, inputs), labels)

    def with_neighbours(self, store: KeyStore, split: Split, bank: Bank, neighbours: int) -> HeldOut:
        """Return the share's records of a split with their neighbours in a bank, which are looked up anew."""
        rows = self._rows(store, split)
        keys, inputs, labels = (torch.from_numpy(_array(self.folder, name)[rows]) for name in (_KEYS, _INPUTS, _LABELS))
        return HeldOut(inputs, labels, nearest(keys, store.records.read_keys(bank.entries), neighbours))

    def _rows(self, store: KeyStore, split: Split) -> NDArray[np.int64]:
        """Return the share's records of a split whose subjects the site has not been told to forget.

        A site without any training record, as one that has forgotten everything, has nothing that could be tested.
        """
        if not store.records.count(Split.TRAIN):
            return np.empty(0, dtype=np.int64)
        rows = np.flatnonzero(_array(self.folder, _SPLITS) == split.value)
        rows = rows[(self.part + self.round_number) % self.parts :: self.parts]
        subjects = [reference.tobytes() for reference in _array(self.folder, _SUBJECTS)[rows]]
        return rows[~store.records.have_deleted_subjects(subjects)]


def held_out_of(site: Path, round_number: int) -> OwnHeldOut | SharedHeldOut:
    """Return what evaluations of a site with some folder are about in a round.

    Raises `KeyStoreError` if its folder names records that are not there.
    """
    link = site / _LINK
    if not link.exists():
        return OwnHeldOut()
    said = json.loads(link.read_text(encoding="utf-8"))
    shared = SharedHeldOut(Path(said["folder"]), int(said["part"]), int(said["parts"]), round_number)
    if not (shared.folder / _INPUTS).is_file():
        raise KeyStoreError(f"the held-out records {shared.folder} that {link} names are not there; put them back")
    return shared


@lru_cache(maxsize=16)
def _array(folder: Path, name: str) -> NDArray[Any]:
    """Return an array of a folder that is never written again; its pages are shared by all that read it."""
    found: NDArray[Any] = np.load(folder / name, mmap_mode="r", allow_pickle=False)
    return found


@lru_cache(maxsize=1)
def _all_numbers(folder: Path, read: FeatureMap) -> NDArray[np.int16]:
    """Return all records as a feature map reads them: whole numbers of at most 15 bits."""
    keys, inputs = _array(folder, _KEYS), _array(folder, _INPUTS)
    places = [slice(start, start + _BLOCK) for start in range(0, len(keys), _BLOCK)]
    blocks = [read.read(*(np.asarray(array[part], np.float32) for array in (keys, inputs))) for part in places]
    return np.concatenate([np.empty((0, read.size)), *blocks]).astype(np.int16)
