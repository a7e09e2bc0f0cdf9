"""Which rows of a manifest can be imported, as far as that can be said without opening a single image."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedmunkey.client.importing.class_names import class_index
from fedmunkey.client.importing.conventions import Conventions
from fedmunkey.client.importing.manifest import Manifest, Row
from fedmunkey.client.importing.refusals import Reason, RefusedRow
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.records.dataset import Consent, Split
from fedmunkey.common.deletions.references import FederationSecret

DELETED = "the record or its subject was deleted; --new-consent lets it in again"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A record that will be imported if its file can be read; `row` is its place in the manifest."""

    row: int
    path: Path
    label: int
    record_id: str
    subject_id: str
    split: Split
    consent: Consent


@dataclass(frozen=True)
class ImportPlan:
    """What is to become of a manifest's rows: candidates, refusals, and how many the site holds already."""

    candidates: tuple[Candidate, ...]
    refusals: tuple[RefusedRow, ...]
    known: int


@dataclass(frozen=True, slots=True)
class HeldRecord:
    """What a key store says of one record."""

    subject_id: str
    label: int
    split: Split
    consent: Consent


@dataclass(frozen=True)
class Held:
    """What is in a key store: each record by its id, and the splits that a subject's records are in."""

    records: dict[str, HeldRecord]
    splits: dict[str, frozenset[Split]]

    @classmethod
    def read(cls, store: KeyStore) -> Held:
        """Read it; deletions that come meanwhile are seen, or are carried out later."""
        return store.until_unchanged(lambda _: cls._read(store))

    @classmethod
    def _read(cls, store: KeyStore) -> Held:
        records: dict[str, HeldRecord] = {}
        splits: dict[str, set[Split]] = defaultdict(set)
        for split in Split:
            entries, labels = store.records.read_entries(split)
            permanent = store.records.read_permanent(entries)
            for rows in np.array_split(np.arange(len(entries)), len(entries) // 1024 + 1):
                for row, (record, subject) in zip(rows, store.records.read_ids(entries[rows]), strict=True):
                    consent = Consent.PERMANENT if permanent[row] else Consent.REVOCABLE
                    records[record] = HeldRecord(subject, int(labels[row]), split, consent)
                    splits[subject].add(split)
        return cls(records, {subject: frozenset(found) for subject, found in splits.items()})


class _Refused(Exception):  # noqa: N818
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


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
        self._secret = secret
        self._consent = consent
        self._new_consent = new_consent
        self._store: KeyStore | None = None
        self._held = Held({}, {})
        self._first: dict[str, int] = {}
        self._subjects: dict[str, set[str]] = defaultdict(set)
        self._splits: dict[str, set[str]] = defaultdict(set)
        for row in manifest.rows:
            self._first.setdefault(row.record_id, row.number)
            self._subjects[row.record_id].add(row.subject_id)
            self._splits[row.subject_id].add(row.split.lower())

    def plan(self, store: KeyStore | None) -> ImportPlan:
        """Say what is to become of each row, given the site's key store if it has one."""
        self._store = store
        self._held = Held({}, {}) if store is None else Held.read(store)
        candidates = []
        refusals = [
            RefusedRow(number, Reason.FIELDS, "the row has another number of fields than the header")
            for number in self._manifest.broken
        ]
        known = 0
        for row in self._manifest.rows:
            try:
                candidate = self._candidate(row)
            except _Refused as refused:
                refusals.append(RefusedRow(row.number, refused.reason, refused.detail))
                continue
            if row.record_id in self._held.records:
                known += 1
            else:
                candidates.append(candidate)
        return ImportPlan(tuple(candidates), tuple(refusals), known)

    def _candidate(self, row: Row) -> Candidate:
        if not (row.path and row.label and row.record_id and row.subject_id):
            raise _Refused(Reason.EMPTY, "path, label, record_id or subject_id is empty")
        if not (row.record_id.isprintable() and row.subject_id.isprintable()):
            raise _Refused(Reason.IDENTIFIER, "an id holds a character that cannot be printed")
        self._check_subject(row)
        label = class_index(row.label, self._conventions.classes)
        if label is None:
            raise _Refused(Reason.LABEL, "the label is neither a class nor the number of one")
        consent = self._read_consent(row)
        split = self._read_split(row)
        self._check_deletion(row)
        self._check_held(row, label, split, consent)
        path = self._manifest.path.parent / row.path
        return Candidate(row.number, path, label, row.record_id, row.subject_id, split, consent)

    def _check_subject(self, row: Row) -> None:
        if len(self._subjects[row.record_id]) > 1:
            raise _Refused(Reason.SUBJECT, "other rows give this record to another subject")
        held = self._held.records.get(row.record_id)
        if held is not None and held.subject_id != row.subject_id:
            raise _Refused(Reason.SUBJECT, "the site holds this record under another subject")
        first = self._first[row.record_id]
        if first != row.number:
            raise _Refused(Reason.DUPLICATE, f"the record is that of row {first}")

    def _read_consent(self, row: Row) -> Consent:
        if not row.consent:
            return self._consent
        try:
            return Consent(row.consent.lower())
        except ValueError:
            raise _Refused(Reason.CONSENT, f"the consent is none of {', '.join(Consent)}") from None

    def _read_split(self, row: Row) -> Split:
        if len(self._splits[row.subject_id]) > 1:
            raise _Refused(Reason.SPLIT, "not all rows of this subject are in one split")
        if row.split:
            try:
                split = Split(row.split.lower())
            except ValueError:
                raise _Refused(Reason.SPLIT, f"the split is none of {', '.join(Split)}") from None
        else:
            split = self._conventions.rule.split_of(self._secret.reference(row.subject_id))
        if row.record_id not in self._held.records and self._held.splits.get(row.subject_id, {split}) != {split}:
            raise _Refused(Reason.SPLIT, f"the site holds this subject in another split than {split}")
        return split

    def _check_deletion(self, row: Row) -> None:
        if self._store is None or row.record_id in self._held.records or row.record_id in self._new_consent:
            return
        references = (self._secret.reference(identifier) for identifier in (row.record_id, row.subject_id))
        if self._store.records.refuses(*references):
            raise _Refused(Reason.DELETED, DELETED)

    def _check_held(self, row: Row, label: int, split: Split, consent: Consent) -> None:
        """Refuse to pass over in silence that the site has it otherwise; what nobody says does not differ."""
        held = self._held.records.get(row.record_id)
        if held is None:
            return
        for name, differs in (
            ("label", held.label != label),
            ("consent", bool(row.consent) and held.consent is not consent),
            ("split", bool(row.split) and held.split is not split),
        ):
            if differs:
                raise _Refused(Reason.DIFFERS, f"the site holds this record with another {name}; it was left as it is")
