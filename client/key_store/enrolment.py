"""Adding records to a key store: what is known stays as it was, what was deleted stays out without new consent."""

from __future__ import annotations

import secrets
import sqlite3
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.dataset import Dataset, Split
from client.key_store.contents import Enrolled, StoreDescription, Tokens
from client.key_store.description import Identity
from client.key_store.identities import SECRET_BYTES, ReferenceHashes, encrypt_identity
from client.key_store.influence import lift
from common.encoders import Encoding
from common.references import FederationSecret
from common.settings import ImagePath


@dataclass(frozen=True)
class Arrivals:
    """Records that are to be enrolled, with all that the store keeps of them.

    Attributes
    ----------
    records : Dataset
        The n records.
    references, subjects : list of bytes
        The n references of the records and of their subjects.
    keys : ndarray
        (n, key_size) float32.
    inputs : ndarray
        (n, *input_shape).
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


def add_records(
    connection: sqlite3.Connection, identity: Identity, arrivals: Arrivals, new_consent: frozenset[str]
) -> Enrolled:
    """Add records, within the caller's transaction; `new_consent` lets records in that were deleted, by their ids."""
    added = known = refused = 0
    for row, (reference, subject) in enumerate(zip(arrivals.references, arrivals.subjects, strict=True)):
        if is_known(connection, identity.hashes, reference):
            known += 1
        elif (
            is_tombstoned(connection, identity.hashes, reference, subject)
            and str(arrivals.records.record_ids[row]) not in new_consent
        ):
            refused += 1
        else:
            _insert(connection, identity, arrivals, row)
            added += 1
    return Enrolled(added, known, refused)


def is_known(connection: sqlite3.Connection, hashes: ReferenceHashes, record: bytes) -> bool:
    """Return whether a record is in the store."""
    query = "SELECT 1 FROM records WHERE record_hash = ?"
    return connection.execute(query, (hashes.record(record),)).fetchone() is not None


def is_tombstoned(connection: sqlite3.Connection, hashes: ReferenceHashes, record: bytes, subject: bytes) -> bool:
    """Return whether a record or its subject was named by a deletion order."""
    query = "SELECT 1 FROM tombstones WHERE hash IN (?, ?)"
    return connection.execute(query, (hashes.record(record), hashes.subject(subject))).fetchone() is not None


def _insert(connection: sqlite3.Connection, identity: Identity, arrivals: Arrivals, row: int) -> None:
    records, hashes = arrivals.records, identity.hashes
    secret = secrets.token_bytes(SECRET_BYTES)
    split = str(records.splits[row])
    record_hash = hashes.record(arrivals.references[row])
    # The weights that left the site while it was here before are still out there.
    influence = lift(connection, record_hash)
    entry = connection.execute(
        "INSERT INTO records (record_hash, subject_hash, identity, label, split, consent, influence) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            record_hash,
            hashes.subject(arrivals.subjects[row]),
            encrypt_identity(secret, str(records.record_ids[row]), str(records.subject_ids[row])),
            int(records.labels[row]),
            split,
            str(records.consents[row]),
            influence.value,
        ),
    ).lastrowid
    contents = {"secrets": secret, "keys": arrivals.keys[row].tobytes(), "inputs": arrivals.inputs[row].tobytes()}
    if split == Split.TRAIN:
        contents["tokens"] = bytes(Tokens.packed_size(identity.description.exemplar_size))
    for table, content in contents.items():
        connection.execute(f"INSERT INTO {table} (entry, content) VALUES (?, ?)", (entry, content))  # noqa: S608
