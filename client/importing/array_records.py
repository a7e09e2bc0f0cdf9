"""Records of array files as a site enrols them: what each is called, and checks against each other and what is held.

A file's rows and numbers mean nothing outside of it, so that what it leaves unnamed gets a name of its own:

- a record without an id is called `SITE-` and 16 digits of its picture's SHA-256, `-2`, `-3` and so on after it where
  the file has the same picture again. The same picture in another file is the same record.
- the subject with the number 7 is called `SITE-subject-7`, in whichever file of the site.

Before this rule they were called `train-17` and `subject-7`. What a site holds under such a name keeps it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.importing.held_records import HeldPictures, HeldRecord, HeldRecords
from fedmunkey.client.importing.identifiers import is_missing, is_rounded, plain_id
from fedmunkey.client.importing.notices import NotedRow, SeenPictures
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.records.dataset import Dataset, Split
from fedmunkey.client.records.medmnist_files import ArrayFile
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.errors import InvalidDataset, count_of

_DIGITS = 16

_OF_ONE = {"are": "is", "have": "has", "say": "says"}
"""Verbs of several records, and of one."""


def picture_name(site: str, image: NDArray[np.uint8]) -> str:
    """Return what a site calls a record of which nothing is known but its (C, H, W) picture."""
    shape = "x".join(map(str, image.shape))
    return f"{site}-{hashlib.sha256(shape.encode() + image.tobytes()).hexdigest()[:_DIGITS]}"


def picture_pattern(site: str) -> str:
    """Return what such names look like, in words."""
    return f"{site}-... ({_DIGITS} digits)"


def subject_name(site: str, former: str) -> str:
    """Return what a site calls a subject that a file has a number for; formerly `subject-7`."""
    return f"{site}-{former}"


@dataclass(frozen=True)
class ArrayRecords:
    """Names and checks the records of one array file, given what the site holds; `path` is named in errors."""

    path: Path
    found: ArrayFile
    held: HeldRecords
    pictures: HeldPictures | None
    store: KeyStore | None
    secret: FederationSecret

    @classmethod
    def of(cls, path: Path, found: ArrayFile, store: KeyStore | None, secret: FederationSecret) -> ArrayRecords:
        """Read what the site holds, if it has a key store."""
        if store is None:
            return cls(path, found, HeldRecords.none(), None, None, secret)
        return cls(path, found, HeldRecords.read(store), HeldPictures(store, secret), store, secret)

    def named(self, site: str) -> Dataset:
        """Return the records under the names that the site knows them by, or will.

        Raises `InvalidDataset` if a name says that there is none, has lost its digits, or comes twice.
        """
        given = self.found.dataset
        former = self._held_formerly()
        records = self._plain("ids", given.record_ids, ~self.found.unnamed)
        again: Counter[str] = Counter()
        for row in np.flatnonzero(self.found.unnamed).tolist():
            name = picture_name(site, given.images[row])
            again[name] += 1
            if not former[row]:
                records[row] = name if again[name] == 1 else f"{name}-{again[name]}"
        subjects = self._plain("subjects", given.subject_ids, ~self.found.numbered & ~self.found.alone)
        splits = self.held.subject_splits()
        for row in np.flatnonzero(self.found.numbered).tolist():
            if not (hash(subjects[row]) in splits or (former.any() and self._knew(subjects[row]))):
                subjects[row] = subject_name(site, subjects[row])
        for row in np.flatnonzero(self.found.alone).tolist():
            subjects[row] = records[row]
        if len(set(records)) != len(records):
            raise InvalidDataset(f"{self.path}: a record id comes more than once; every record needs its own")
        return replace(given, record_ids=np.array(records, np.str_), subject_ids=np.array(subjects, np.str_))

    def check(self, records: Dataset) -> NDArray[np.bool_]:
        """Return (N,) which records the site holds already, after a check of all.

        Raises `InvalidDataset` if a subject is in several splits, or a record is held with another picture, label or
        subject.
        """
        splits = dict(self.held.subject_splits())
        held = [self.held.find(name) for name in records.record_ids.tolist()]
        known = np.array([each is not None for each in held], dtype=np.bool_)
        apart, differing = [], []
        for row, (subject, split) in enumerate(zip(records.subject_ids.tolist(), records.splits.tolist(), strict=True)):
            before = held[row]
            if before is None:
                if splits.setdefault(hash(subject), frozenset({Split(split)})) != {Split(split)}:
                    apart.append(row)
            elif self._differs(before, records, row):
                differing.append(row)
        if apart:
            self._refuse(
                apart, "are of a subject that is in another split as well, here or at the site; put each subject in one"
            )
        if differing:
            self._refuse(
                differing,
                "have the id of a record that the site holds with another picture, label or subject; delete that, or "
                "give these another id",
            )
        return known

    def repeated(self, records: Dataset) -> list[NotedRow]:
        """Return the records whose picture another one has, by their place."""
        seen = SeenPictures()
        for row, split in enumerate(records.splits.tolist()):
            seen.add(row, records.images[row].tobytes(), Split(split))
        return seen.repeated()

    def _held_formerly(self) -> NDArray[np.bool_]:
        """Say which records without an id the site holds under the name of their row, with the same picture."""
        given, former = self.found.dataset, np.zeros(len(self.found.dataset), dtype=np.bool_)
        if self.pictures is None:
            return former
        for row in np.flatnonzero(self.found.unnamed).tolist():
            name = str(given.record_ids[row])
            former[row] = self.held.find(name) is not None and not self.pictures.is_another(name, given.images[row])
        return former

    def _differs(self, held: HeldRecord, records: Dataset, row: int) -> bool:
        if held.subject != hash(str(records.subject_ids[row])) or held.label != int(records.labels[row]):
            return True
        name = str(records.record_ids[row])
        return self.pictures is not None and self.pictures.is_another(name, records.images[row])

    def _knew(self, subject: str) -> bool:
        return self.store is not None and self.store.records.knows_subject(self.secret.reference(subject))

    def _plain(self, column: str, names: NDArray[np.str_], given: NDArray[np.bool_]) -> list[str]:
        """Return names as they are typed where the file gives them, unless the site holds them as they are written."""
        plain: list[str] = names.tolist()
        splits = self.held.subject_splits() if column == "subjects" else {}
        for row in np.flatnonzero(given).tolist():
            name = plain[row]
            if is_missing(name.strip()):
                self._refuse([row], f"say that their place in {column} is not known, as nan or unknown do; give one")
            if is_rounded(name):
                self._refuse([row], f"have a rounded number (as 1.2E+12) in {column}; write it with all digits")
            kept = hash(name) in splits if column == "subjects" else self.held.find(name) is not None
            plain[row] = name if kept else plain_id(name)
        return plain

    def _refuse(self, rows: list[int], fault: str) -> NoReturn:
        places = ", ".join(self.found.rows[rows[:3]].tolist()) + (", ..." if len(rows) > 3 else "")
        verb, _, rest = fault.partition(" ")
        verb = _OF_ONE.get(verb, verb) if len(rows) == 1 else verb
        raise InvalidDataset(f"{self.path}: {count_of(len(rows), 'record')} ({places}) {verb} {rest}")
