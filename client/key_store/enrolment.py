"""Adding records to a key store: what is known stays as it was, what was deleted stays out without new consent."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.key_store.database import StoreDatabase
from fedmunkey.client.key_store.on_disk.contents import Enrolled, StoreDescription, Tokens
from fedmunkey.client.key_store.on_disk.encryption import OVERHEAD, seal
from fedmunkey.client.key_store.on_disk.facts import Facts, seal_facts
from fedmunkey.client.key_store.on_disk.influence import (
    EVERY_PERMANENT,
    EVERY_RECORD,
    WHOEVER_WAS_HERE,
    lift,
    recall,
    recall_kept,
)
from fedmunkey.client.key_store.on_disk.record_ciphers import KEY_BYTES
from fedmunkey.client.key_store.on_disk.reference_hashes import ReferenceHashes
from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.privacy.guarantees import Influence
from fedmunkey.common.settings.settings import ImagePath

if TYPE_CHECKING:
    from fedmunkey.common.model.encoders import Encoding


COLUMNS = ("images", "labels", "record_ids", "subject_ids", "splits", "consents")
"""What a data set has of each record."""


@dataclass(frozen=True)
class Arrivals:
    """n records that are to be enrolled, with all that the store keeps of them.

    That is their references and their subjects', (n, key_size) float32 keys and (n, *input_shape) inputs.
    """

    records: Dataset
    references: list[bytes]
    subjects: list[bytes]
    keys: NDArray[np.float32]
    inputs: NDArray[np.generic]

    @classmethod
    def of(
        cls, records: Dataset, encoding: Encoding, secret: FederationSecret, description: StoreDescription
    ) -> Arrivals:
        """Name records by references, and choose what the store's image path reads."""
        patches = description.image_path is ImagePath.PATCHES
        return cls(
            records,
            [secret.reference(identifier) for identifier in records.record_ids],
            [secret.reference(identifier) for identifier in records.subject_ids],
            encoding.keys.numpy().astype(np.float32),
            records.images if patches else encoding.features.numpy().astype(np.float32),
        )

    @classmethod
    def together(cls, parts: Sequence[Arrivals]) -> Arrivals:
        """Return several, at least one, as one."""
        arrays = {name: np.concatenate([getattr(part.records, name) for part in parts]) for name in COLUMNS}
        return cls(
            Dataset(**arrays, class_names=parts[0].records.class_names),
            [reference for part in parts for reference in part.references],
            [subject for part in parts for subject in part.subjects],
            np.concatenate([part.keys for part in parts]),
            np.concatenate([part.inputs for part in parts]),
        )


def add_records(
    database: StoreDatabase,
    arrivals: Arrivals,
    new_consent: frozenset[str],
) -> Enrolled:
    """Add records, within the caller's transaction; `new_consent` lets records in that were deleted, by their ids."""
    known = refused = opted_out = 0
    connection, hashes = database.connection, database.reference_hashes
    # Before the first record: a list that cannot be read names everybody, whatever the consent.
    named = database.instructions.opted_out().hashes
    next_entry = _last_entry(connection) + 1
    made: dict[int, bytes] = {}
    for row, (reference, subject) in enumerate(zip(arrivals.references, arrivals.subjects, strict=True)):
        image = hashes.image(arrivals.records.images[row])
        consented = str(arrivals.records.record_ids[row]) in new_consent
        if is_known(connection, hashes, reference):
            known += 1
        elif named and not named.isdisjoint((hashes.record(reference), hashes.subject(subject))):
            opted_out += 1
        elif not consented and (
            is_tombstoned(connection, hashes, reference, subject) or has_tombstone(connection, image)
        ):
            refused += 1
        else:
            entry = next_entry + len(made)
            made[entry] = secrets.token_bytes(KEY_BYTES)
            _insert(database, arrivals, row, entry, made[entry], image)
    # Before the rows are committed: a key without a record is of no use to anybody, and the next record's replaces it.
    if made:
        database.ciphers.add(made)
    return Enrolled(len(made), known, refused, opted_out)


def _last_entry(connection: sqlite3.Connection) -> int:
    """Return the largest entry number that was ever given."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'records'").fetchone()
    return int(row[0]) if row else 0


def is_known(connection: sqlite3.Connection, hashes: ReferenceHashes, record: bytes) -> bool:
    """Return whether a record is in the store."""
    query = "SELECT 1 FROM records WHERE record_hash = ?"
    return connection.execute(query, (hashes.record(record),)).fetchone() is not None


def is_tombstoned(connection: sqlite3.Connection, hashes: ReferenceHashes, record: bytes, subject: bytes) -> bool:
    """Return whether a record or its subject was named by a deletion order, or may have been, as everything was."""
    query = "SELECT 1 FROM tombstones WHERE hash IN (?, ?, ?)"
    named = (hashes.record(record), hashes.subject(subject), WHOEVER_WAS_HERE)
    return connection.execute(query, named).fetchone() is not None


def has_tombstone(connection: sqlite3.Connection, hash_: bytes) -> bool:
    """Return whether a deletion order has left a tombstone with a hash."""
    return connection.execute("SELECT 1 FROM tombstones WHERE hash = ?", (hash_,)).fetchone() is not None


def _insert(
    database: StoreDatabase,
    arrivals: Arrivals,
    row: int,
    entry: int,
    key: bytes,
    image_hash: bytes,
) -> None:
    connection, records, hashes = database.connection, arrivals.records, database.reference_hashes
    split, consent = str(records.splits[row]), str(records.consents[row])
    record_hash = hashes.record(arrivals.references[row])
    # The weights that left the site while it was here before, under this id or another, are still out there.
    influences = {lift(connection, record_hash), lift(connection, image_hash)}
    influences |= recall_kept(database.journal, (record_hash, image_hash))
    influences |= recall(connection, (EVERY_RECORD, EVERY_PERMANENT)[: 1 + (consent == Consent.PERMANENT)])
    connection.execute(
        "INSERT INTO records (entry, record_hash, subject_hash, image_hash, split, influence) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (
            entry,
            record_hash,
            hashes.subject(arrivals.subjects[row]),
            image_hash,
            split,
            max(influences, key=list(Influence).index).value,
        ),
    )
    contents = {"keys": arrivals.keys[row].tobytes(), "inputs": arrivals.inputs[row].tobytes()}
    sealed = {table: seal(key, table, entry, content) for table, content in contents.items()}
    facts = Facts(int(records.labels[row]), consent == Consent.PERMANENT)
    sealed["ids"] = seal_facts(key, entry, str(records.record_ids[row]), str(records.subject_ids[row]), facts)
    if split == Split.TRAIN:
        sealed["tokens"] = bytes(Tokens.packed_size(database.description.exemplar_size) + OVERHEAD)
    for table, content in sealed.items():
        connection.execute(f"INSERT INTO {table} (entry, content) VALUES (?, ?)", (entry, content))  # noqa: S608
