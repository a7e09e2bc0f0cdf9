"""Key stores of any size, filled with random records straight into the tables: enrolling a million takes too long.

Rows, indices and pages are those of a store that was filled by enrolment. Neighbours are random entries instead of the
nearest ones, which a search would have to find; each entry is in as many lists as has entries, whatever the size.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from client.dataset import Consent, Split
from client.key_store import KeyStore, StoreDescription, Tokens
from client.key_store.identities import SECRET_BYTES, ReferenceHashes, encrypt_identity
from client.key_store.schema import connect
from common.references import FederationSecret
from common.settings import ImagePath

SITE = "hospital-1"
CLASSES = 10

_BLOCK = 4096
_TABLES = {
    "records": "entry, record_hash, subject_hash, identity, label, split, consent, listed",
    "secrets": "entry, content",
    "keys": "entry, content",
    "inputs": "entry, content",
    "tokens": "entry, content",
    "neighbours": "entry, neighbour, similarity",
}


@dataclass(frozen=True)
class SyntheticStore:
    """What a synthetic key store holds.

    Attributes
    ----------
    description : StoreDescription
        Sizes of keys, inputs, exemplar tokens and lists.
    records : int
        Entries, all of the `train` split, numbered from 1.
    subjects : int
        How many subjects share the records; each has every `subjects`-th one.
    lists : bool
        Whether there are neighbour lists; without them all records count as just arrived.
    tokens : bool
        Whether there are exemplar tokens, as after training.
    """

    description: StoreDescription
    records: int
    subjects: int
    lists: bool = True
    tokens: bool = True

    def write(self, path: Path, secret: FederationSecret, progress: Callable[[int], None] | None = None) -> None:
        """Make the key store's file.

        Parameters
        ----------
        path : Path
            Must not exist.
        secret : FederationSecret
            Makes the references of records and subjects, named as `record_name` and `subject_name` say.
        progress : callable, optional
            Called with the number of records finished since the last call.
        """
        with KeyStore.create(path, self.description) as store:
            hashes = store.hashes
        connection = connect(path)
        # Lists name entries that come later, and a crash may ruin the file: it is a benchmark's.
        for pragma in ("foreign_keys = OFF", "journal_mode = OFF", "synchronous = OFF", "temp_store = FILE"):
            connection.execute(f"PRAGMA {pragma}")
        indices = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
        statements = dict(indices.fetchall())
        for name in statements:
            connection.execute(f"DROP INDEX {name}")
        self._fill(connection, secret, hashes, progress or (lambda _: None))
        for statement in statements.values():
            connection.execute(statement)
        connection.close()

    def _fill(
        self,
        connection: sqlite3.Connection,
        secret: FederationSecret,
        hashes: ReferenceHashes,
        progress: Callable[[int], None],
    ) -> None:
        draws = np.random.default_rng(self.records)
        connection.execute("BEGIN")
        for first in range(1, self.records + 1, _BLOCK):
            entries = np.arange(first, min(first + _BLOCK, self.records + 1))
            for table, rows in self._rows(entries, draws, secret, hashes).items():
                places = ", ".join("?" for _ in _TABLES[table].split(","))
                statement = f"INSERT INTO {table} ({_TABLES[table]}) VALUES ({places})"  # noqa: S608 (names from here)
                connection.executemany(statement, rows)
            progress(len(entries))
        connection.execute("COMMIT")

    def _rows(
        self, entries: NDArray[np.int64], draws: np.random.Generator, secret: FederationSecret, hashes: ReferenceHashes
    ) -> dict[str, Iterator[tuple[object, ...]]]:
        count, numbers, sizes = len(entries), entries.tolist(), self.description
        keys = draws.standard_normal((count, sizes.key_size), dtype=np.float32)
        keys /= np.linalg.norm(keys, axis=1, keepdims=True)
        shape = (count, *sizes.input_shape)
        patches = sizes.image_path is ImagePath.PATCHES
        inputs = draws.integers(0, 256, shape, np.uint8) if patches else draws.standard_normal(shape, dtype=np.float32)
        rows: dict[str, Iterator[tuple[object, ...]]] = {
            "records": self._records(entries, draws, secret, hashes),
            "secrets": ((entry, _entry_secret(entry)) for entry in numbers),
            "keys": zip(numbers, (key.tobytes() for key in keys), strict=True),
            "inputs": zip(numbers, (one.tobytes() for one in inputs), strict=True),
        }
        tokens = Tokens.zeros(count, sizes.exemplar_size)
        if self.tokens:
            for part in (tokens.offsets, tokens.first_moments, tokens.second_moments):
                part.copy_(torch.from_numpy(draws.standard_normal(part.shape, dtype=np.float32)))
            tokens.steps.fill_(1)
        rows["tokens"] = zip(numbers, tokens.pack(), strict=True)
        if self.lists:
            rows["neighbours"] = self._neighbours(entries, draws)
        return rows

    def _records(
        self, entries: NDArray[np.int64], draws: np.random.Generator, secret: FederationSecret, hashes: ReferenceHashes
    ) -> Iterator[tuple[object, ...]]:
        labels = draws.integers(0, CLASSES, len(entries)).tolist()
        consent, listed = Consent.REVOCABLE.value, int(self.lists)
        for entry, label in zip(entries.tolist(), labels, strict=True):
            name, subject = record_name(entry), subject_name(entry % self.subjects)
            found_by = hashes.record(secret.reference(name)), hashes.subject(secret.reference(subject))
            identity = encrypt_identity(_entry_secret(entry), name, subject)
            yield entry, *found_by, identity, label, Split.TRAIN.value, consent, listed

    def _neighbours(self, entries: NDArray[np.int64], draws: np.random.Generator) -> Iterator[tuple[object, ...]]:
        """Yield lists of different random entries, by entry and neighbour: the order in which the table keeps them."""
        length = min(self.description.list_length, self.records - 1)
        # Steps of at least one, of fewer records in all than there are, lead to different entries and never back.
        steps = draws.integers(1, max((self.records - 1) // length, 1) + 1, (len(entries), length))
        neighbours = np.sort((entries[:, None] + steps.cumsum(1) - 1) % self.records + 1, axis=1)
        similarities = draws.random(neighbours.shape)
        sources = np.repeat(entries, length).tolist()
        return zip(sources, neighbours.ravel().tolist(), similarities.ravel().tolist(), strict=True)


def record_name(entry: int) -> str:
    """Return the id of a synthetic record, numbered from 1."""
    return f"record-{entry}"


def subject_name(number: int) -> str:
    """Return the id of a synthetic subject, numbered from 0."""
    return f"subject-{number}"


def _entry_secret(entry: int) -> bytes:
    """Return a secret of the right length; nobody needs this one kept."""
    return entry.to_bytes(SECRET_BYTES, "big")
