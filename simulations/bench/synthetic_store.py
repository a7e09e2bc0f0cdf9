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
from numpy.typing import NDArray

from client.dataset import Consent, Split
from client.key_store import KeyStore, StoreDescription
from client.key_store.schema import connect
from common.references import FederationSecret
from common.settings import ImagePath

SITE = "hospital-1"
CLASSES = 10

_BLOCK = 4096
_TABLES = {
    "records": "entry, record_id, record_reference, subject_id, subject_reference, label, split, consent, listed",
    "keys": "entry, key",
    "inputs": "entry, input",
    "tokens": "entry, offset, first_moment, second_moment, steps",
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
        KeyStore.create(path, self.description).close()
        connection = connect(path)
        # Lists name entries that come later, and a crash may ruin the file: it is a benchmark's.
        for pragma in ("foreign_keys = OFF", "journal_mode = OFF", "synchronous = OFF", "temp_store = FILE"):
            connection.execute(f"PRAGMA {pragma}")
        indices = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
        statements = dict(indices.fetchall())
        for name in statements:
            connection.execute(f"DROP INDEX {name}")
        self._fill(connection, secret, progress or (lambda _: None))
        for statement in statements.values():
            connection.execute(statement)
        connection.close()

    def _fill(self, connection: sqlite3.Connection, secret: FederationSecret, progress: Callable[[int], None]) -> None:
        draws = np.random.default_rng(self.records)
        subjects = [secret.reference(subject_name(number)) for number in range(self.subjects)]
        connection.execute("BEGIN")
        for first in range(1, self.records + 1, _BLOCK):
            entries = np.arange(first, min(first + _BLOCK, self.records + 1))
            for table, rows in self._rows(entries, draws, secret, subjects).items():
                places = ", ".join("?" for _ in _TABLES[table].split(","))
                statement = f"INSERT INTO {table} ({_TABLES[table]}) VALUES ({places})"  # noqa: S608 (names from here)
                connection.executemany(statement, rows)
            progress(len(entries))
        connection.execute("COMMIT")

    def _rows(
        self, entries: NDArray[np.int64], draws: np.random.Generator, secret: FederationSecret, subjects: list[bytes]
    ) -> dict[str, Iterator[tuple[object, ...]]]:
        count, numbers, sizes = len(entries), entries.tolist(), self.description
        keys = draws.standard_normal((count, sizes.key_size), dtype=np.float32)
        keys /= np.linalg.norm(keys, axis=1, keepdims=True)
        shape = (count, *sizes.input_shape)
        patches = sizes.image_path is ImagePath.PATCHES
        inputs = draws.integers(0, 256, shape, np.uint8) if patches else draws.standard_normal(shape, dtype=np.float32)
        rows: dict[str, Iterator[tuple[object, ...]]] = {
            "records": self._records(entries, draws, secret, subjects),
            "keys": zip(numbers, (key.tobytes() for key in keys), strict=True),
            "inputs": zip(numbers, (one.tobytes() for one in inputs), strict=True),
        }
        if self.tokens:
            token = draws.standard_normal((3, count, sizes.exemplar_size), dtype=np.float32)
            blobs = ((row.tobytes() for row in part) for part in token)
            rows["tokens"] = zip(numbers, *blobs, (1 for _ in numbers), strict=True)
        if self.lists:
            rows["neighbours"] = self._neighbours(entries, draws)
        return rows

    def _records(
        self, entries: NDArray[np.int64], draws: np.random.Generator, secret: FederationSecret, subjects: list[bytes]
    ) -> Iterator[tuple[object, ...]]:
        labels = draws.integers(0, CLASSES, len(entries)).tolist()
        consent, listed = Consent.REVOCABLE.value, int(self.lists)
        for entry, label in zip(entries.tolist(), labels, strict=True):
            name, subject = record_name(entry), entry % self.subjects
            reference = secret.reference(name)
            owner = subject_name(subject), subjects[subject]
            yield entry, name, reference, *owner, label, Split.TRAIN.value, consent, listed

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
