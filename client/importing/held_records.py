"""What a site's key store holds, as far as an import asks: by hashes, so that memory hardly grows with the records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.records.dataset import Consent, Split
from fedmunkey.common.deletions.references import FederationSecret

_SPLITS = tuple(Split)
_BLOCK = 1024
_PREFIX = 8
"""Bytes of a hash by which a picture is known again."""


@dataclass(frozen=True, slots=True)
class HeldRecord:
    """What a key store says of one record; the subject is named by its hash."""

    subject: int
    label: int
    split: Split
    consent: Consent


@dataclass(frozen=True)
class HeldRecords:
    """The records of a key store by their ids' hashes, in rising order, and each subject's splits."""

    names: NDArray[np.int64]
    subjects: NDArray[np.int64]
    labels: NDArray[np.int64]
    splits: NDArray[np.int8]
    permanent: NDArray[np.bool_]

    @classmethod
    def none(cls) -> HeldRecords:
        """Return what a site without a key store holds."""
        empty = np.empty(0, dtype=np.int64)
        return cls(empty, empty, empty, empty.astype(np.int8), empty.astype(np.bool_))

    @classmethod
    def read(cls, store: KeyStore) -> HeldRecords:
        """Read it; deletions that come meanwhile are seen, or are carried out later."""
        return store.until_unchanged(lambda _: cls._read(store))

    @classmethod
    def _read(cls, store: KeyStore) -> HeldRecords:
        parts = [cls.none()]
        for code, split in enumerate(_SPLITS):
            entries, labels = store.records.read_entries(split)
            permanent = store.records.read_permanent(entries)
            for rows in np.array_split(np.arange(len(entries)), len(entries) // _BLOCK + 1):
                ids = store.records.read_ids(entries[rows])
                parts.append(
                    cls(
                        np.array([hash(record) for record, _ in ids], dtype=np.int64),
                        np.array([hash(subject) for _, subject in ids], dtype=np.int64),
                        labels.numpy()[rows].astype(np.int64),
                        np.full(len(rows), code, dtype=np.int8),
                        permanent[rows],
                    )
                )
        names = np.concatenate([part.names for part in parts])
        order = np.argsort(names)
        return cls(
            names[order],
            np.concatenate([part.subjects for part in parts])[order],
            np.concatenate([part.labels for part in parts])[order],
            np.concatenate([part.splits for part in parts])[order],
            np.concatenate([part.permanent for part in parts])[order],
        )

    def find(self, record_id: str) -> HeldRecord | None:
        """Return what is held under a record's id, None if nothing is."""
        name = hash(record_id)
        place = int(np.searchsorted(self.names, name))
        if place == len(self.names) or self.names[place] != name:
            return None
        consent = Consent.PERMANENT if self.permanent[place] else Consent.REVOCABLE
        return HeldRecord(int(self.subjects[place]), int(self.labels[place]), _SPLITS[self.splits[place]], consent)

    def subject_splits(self) -> dict[int, frozenset[Split]]:
        """Return the splits that each subject's records are in, by the subject's hash."""
        found: dict[int, frozenset[Split]] = {}
        alone = [frozenset({split}) for split in _SPLITS]
        for subject, code in zip(self.subjects.tolist(), self.splits.tolist(), strict=True):
            before = found.get(subject)
            found[subject] = alone[code] if before is None else before | alone[code]
        return found


class HeldPictures:
    """Which picture a key store has of each record, known again by the store's own keyed hash."""

    def __init__(self, store: KeyStore, secret: FederationSecret) -> None:
        self._hashes = store.database.reference_hashes
        self._secret = secret
        rows = store.database.connection.execute("SELECT record_hash, image_hash FROM records")
        pairs = np.array([(_start(record), _start(image)) for record, image in rows], dtype=np.int64).reshape(-1, 2)
        self._pairs = pairs[np.argsort(pairs[:, 0])]
        self._images = np.sort(pairs[:, 1])

    def is_another(self, record_id: str, image: NDArray[np.uint8]) -> bool:
        """Return whether the store has a record with this id, and another picture of it."""
        found = self._find(self._pairs[:, 0], self._hashes.record(self._secret.reference(record_id)))
        return found is not None and int(self._pairs[found, 1]) != _start(self._hashes.image(image))

    def holds(self, image: NDArray[np.uint8]) -> bool:
        """Return whether the store has a record of this picture, whatever its id is."""
        return self._find(self._images, self._hashes.image(image)) is not None

    def differing(self, record_ids: Sequence[str], images: NDArray[np.uint8]) -> list[int]:
        """Return the places of the records of which the store has another picture."""
        return [place for place, name in enumerate(record_ids) if self.is_another(str(name), images[place])]

    @staticmethod
    def _find(among: NDArray[np.int64], wanted: bytes) -> int | None:
        place = int(np.searchsorted(among, _start(wanted)))
        return place if place < len(among) and among[place] == _start(wanted) else None


def _start(hash_: bytes) -> int:
    return int.from_bytes(hash_[:_PREFIX], "big", signed=True)
