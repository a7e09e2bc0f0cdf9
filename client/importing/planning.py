"""Which rows of a manifest can be imported, as far as that can be said without opening a single image."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.importing.class_names import class_index
from fedmunkey.client.importing.conventions import Conventions
from fedmunkey.client.importing.held_records import HeldRecord, HeldRecords
from fedmunkey.client.importing.identifiers import is_missing, is_rounded, plain_id
from fedmunkey.client.importing.manifest import Manifest, Row
from fedmunkey.client.importing.notices import NotedRow, Notice
from fedmunkey.client.importing.pictures import Choices
from fedmunkey.client.importing.refusals import Reason, RefusedRow
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.records.dataset import Consent, Split
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.errors import InvalidInput
from fedmunkey.common.settings.likeness import likeness

DELETED = "the record or its subject was deleted, or may have been; --new-consent lets it in again"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A record that will be imported if its file can be read; `row` is its place in the manifest.

    One that the site holds already is `known`: it is only compared.
    """

    row: int
    path: Path
    label: int
    record_id: str
    subject_id: str
    split: Split
    consent: Consent
    known: bool
    choices: Choices


@dataclass(frozen=True)
class ImportPlan:
    """What is to become of a manifest's rows: refusals, what deserves a look, and how many candidates there are."""

    refusals: tuple[RefusedRow, ...]
    noted: tuple[NotedRow, ...]
    candidates: int


class _Refused(Exception):  # noqa: N818
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass
class _Names:
    """What rows say of each other: of each row, hashes of its record, its subject, what that is like, and its split."""

    numbers: array[int] = field(default_factory=lambda: array("q"))
    records: array[int] = field(default_factory=lambda: array("q"))
    subjects: array[int] = field(default_factory=lambda: array("q"))
    alike: array[int] = field(default_factory=lambda: array("q"))
    splits: array[int] = field(default_factory=lambda: array("q"))
    rewritten: array[int] = field(default_factory=lambda: array("q"))

    def add(self, row: Row, *, rewritten: bool) -> None:
        self.numbers.append(row.number)
        self.records.append(hash(row.record_id))
        self.subjects.append(hash(row.subject_id))
        self.alike.append(hash(likeness(row.subject_id)))
        self.splits.append(hash(row.split.lower()))
        if rewritten:
            self.rewritten.append(row.number)

    def noted(self) -> Iterator[NotedRow]:
        """Yield rows whose subject is written in another way elsewhere, and those of which an id was rewritten."""
        for place in np.flatnonzero(_differ(self.alike, self.subjects)).tolist():
            yield NotedRow(self.numbers[place], Notice.ALIKE_SUBJECTS)
        for number in self.rewritten:
            yield NotedRow(number, Notice.PLAIN_IDS)


def _differ(groups: array[int], values: array[int]) -> NDArray[np.bool_]:
    """Return which members of a group are in one whose values are not all the same."""
    if not groups:
        return np.zeros(0, dtype=np.bool_)
    _, group, first = _grouped(groups)
    given = np.array(values)
    differing = np.zeros(len(first), dtype=np.bool_)
    np.logical_or.at(differing, group, given != given[first[group]])
    return np.asarray(differing[group])


def _grouped(groups: array[int]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    found, first, group = np.unique(np.array(groups), return_index=True, return_inverse=True)
    return found, group, first


class Planner:
    """Checks rows against each other, the site's conventions and what the key store holds.

    `consent` is that of rows that do not say; `new_consent` are ids of records that may come back after a deletion.
    """

    def __init__(
        self,
        manifest: Manifest,
        conventions: Conventions,
        secret: FederationSecret,
        *,
        consent: Consent,
        new_consent: frozenset[str],
    ) -> None:
        self._manifest = manifest
        self._conventions = conventions
        self._choices = conventions.choices
        self._secret = secret
        self._consent = consent
        self._new_consent = new_consent
        self._store: KeyStore | None = None
        self._held = HeldRecords.none()
        self._held_splits: dict[int, frozenset[Split]] = {}
        self._accepted: NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)

    def plan(self, store: KeyStore | None) -> ImportPlan:
        """Say what is to become of each row, given the site's key store if it has one."""
        self._store = store
        self._held = HeldRecords.none() if store is None else HeldRecords.read(store)
        self._held_splits = self._held.subject_splits()
        names = _Names()
        for row in self._manifest.rows:
            plain = self._plain(row)
            names.add(plain, rewritten=plain != row)
        self._read_conflicts(names)
        refusals = [
            RefusedRow(number, Reason.FIELDS, "the row has another number of fields than the header")
            for number in self._manifest.broken
        ]
        self._accepted = np.zeros(self._manifest.count, dtype=np.bool_)
        for place, row in enumerate(self._manifest.rows):
            try:
                self._candidate(place, self._plain(row))
                self._accepted[place] = True
            except _Refused as refused:
                refusals.append(RefusedRow(row.number, refused.reason, refused.detail))
        return ImportPlan(tuple(refusals), tuple(names.noted()), int(self._accepted.sum()))

    def candidates(self) -> Iterator[Candidate]:
        """Yield the rows that were not refused, as candidates."""
        for place, row in enumerate(self._manifest.rows):
            if self._accepted[place]:
                yield self._candidate(place, self._plain(row))

    def _plain(self, row: Row) -> Row:
        """Return a row with ids as they are typed, unless the site holds them as they are written."""
        record, subject = plain_id(row.record_id), plain_id(row.subject_id)
        if record == row.record_id and subject == row.subject_id:
            return row
        if self._held.find(row.record_id) is not None:
            record = row.record_id
        if hash(row.subject_id) in self._held_splits:
            subject = row.subject_id
        return replace(row, record_id=record, subject_id=subject)

    def _read_conflicts(self, names: _Names) -> None:
        self._two_subjects = _differ(names.records, names.subjects)
        self._two_splits = _differ(names.subjects, names.splits)
        self._first: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        if names.records:
            _, group, first = _grouped(names.records)
            self._first = np.array(names.numbers)[first[group]]

    def _candidate(self, place: int, row: Row) -> Candidate:
        self._check_filled(row)
        held = self._held.find(row.record_id)
        self._check_subject(place, row, held)
        label = class_index(row.label, self._conventions.classes)
        if label is None:
            if is_missing(row.label):
                raise _Refused(
                    Reason.EMPTY, "the label says that there is none; if it is a class, name it with --class"
                )
            raise _Refused(Reason.LABEL, "the label is neither a class nor the number of one")
        consent = self._read_consent(row)
        split = self._read_split(place, row, held)
        self._check_deletion(row, held)
        _check_held(row, held, label, split, consent)
        path = self._manifest.path.parent / row.path
        ids, known = (row.record_id, row.subject_id), held is not None
        return Candidate(row.number, path, label, *ids, split, consent, known, self._read_choices(row))

    def _read_choices(self, row: Row) -> Choices:
        """Return what is taken of the row's file, as the row says or else the site's conventions."""
        if not (row.frame or row.slice):
            return self._choices
        held = self._conventions
        try:
            return Choices.parse(row.slice or held.volume_slice, row.frame or held.frame, held.bits)
        except InvalidInput:
            raise _Refused(Reason.FILE, "frame or slice is neither middle nor the number of one") from None

    def _check_filled(self, row: Row) -> None:
        if not (row.path and row.label and row.record_id and row.subject_id):
            raise _Refused(Reason.EMPTY, "path, label, record_id or subject_id is empty")
        for name, text in (("record_id", row.record_id), ("subject_id", row.subject_id)):
            if is_missing(text):
                raise _Refused(Reason.EMPTY, f"{name} says that it is not known, as nan, NA or unknown do; give one")
            if is_rounded(text):
                raise _Refused(
                    Reason.IDENTIFIER, f"{name} is a rounded number (as 1.2E+12), its digits are lost; save it as text"
                )
        if not (row.record_id.isprintable() and row.subject_id.isprintable()):
            raise _Refused(Reason.IDENTIFIER, "an id holds a character that cannot be printed")

    def _check_subject(self, place: int, row: Row, held: HeldRecord | None) -> None:
        if self._two_subjects[place]:
            raise _Refused(Reason.SUBJECT, "other rows give this record to another subject")
        if held is not None and held.subject != hash(row.subject_id):
            raise _Refused(Reason.SUBJECT, "the site holds this record under another subject")
        first = int(self._first[place])
        if first != row.number:
            raise _Refused(Reason.DUPLICATE, f"the record is that of row {first}")

    def _read_consent(self, row: Row) -> Consent:
        if not row.consent:
            return self._consent
        try:
            return Consent(row.consent.lower())
        except ValueError:
            raise _Refused(Reason.CONSENT, f"the consent is none of {', '.join(Consent)}") from None

    def _read_split(self, place: int, row: Row, held: HeldRecord | None) -> Split:
        if self._two_splits[place]:
            raise _Refused(Reason.SPLIT, "not all rows of this subject are in one split")
        if row.split:
            try:
                split = Split(row.split.lower())
            except ValueError:
                raise _Refused(Reason.SPLIT, f"the split is none of {', '.join(Split)}") from None
        else:
            split = self._conventions.rule.split_of(self._secret.reference(row.subject_id))
        if held is None and self._held_splits.get(hash(row.subject_id), {split}) != {split}:
            raise _Refused(Reason.SPLIT, f"the site holds this subject in another split than {split}")
        return split

    def _check_deletion(self, row: Row, held: HeldRecord | None) -> None:
        if self._store is None or held is not None:
            return
        references = [self._secret.reference(identifier) for identifier in (row.record_id, row.subject_id)]
        if self._store.records.is_opted_out(*references):
            raise _Refused(Reason.OPTED_OUT, "the record or its subject is on the federation's opt-out list")
        if row.record_id in self._new_consent:
            return
        if self._store.records.refuses(*references):
            raise _Refused(Reason.DELETED, DELETED)


def _check_held(row: Row, held: HeldRecord | None, label: int, split: Split, consent: Consent) -> None:
    """Refuse to pass over in silence that the site has it otherwise; what nobody says does not differ."""
    if held is None:
        return
    for name, differs in (
        ("label", held.label != label),
        ("consent", bool(row.consent) and held.consent is not consent),
        ("split", bool(row.split) and held.split is not split),
    ):
        if differs:
            raise _Refused(Reason.DIFFERS, f"the site holds this record with another {name}; it was left as it is")
