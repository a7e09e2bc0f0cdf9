"""The receipts that a site has signed, and what it has seen of the coordinator's log: one SQLite file in its folder."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from client.key_store import KeyStore
from client.key_store.schema import not_waiting_for_disk
from common.deletion import Records, Subject, Target
from common.errors import KeyStoreError
from common.receipts import WitnessedHead
from common.signing.statements import write_time

_BUSY_SECONDS = 30.0
_TABLES = """
-- `receipt` never changes: an order has one receipt. `included`: the coordinator has shown that it is in the log.
CREATE TABLE IF NOT EXISTS receipts (
    number INTEGER PRIMARY KEY,
    receipt BLOB NOT NULL,
    included INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS receipts_to_prove ON receipts (number) WHERE included = 0;

-- The last head of the log that was checked, whole.
CREATE TABLE IF NOT EXISTS head (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    envelope BLOB NOT NULL
) STRICT;

-- What the coordinator has shown that cannot be true; rows are never removed by a program.
CREATE TABLE IF NOT EXISTS alarms (
    id INTEGER PRIMARY KEY,
    fault TEXT NOT NULL UNIQUE,
    first_seen TEXT NOT NULL,
    last_seen TEXT NOT NULL,
    envelope BLOB NOT NULL
) STRICT;
"""


@dataclass(frozen=True)
class Alarm:
    """A fault of the coordinator's log, and when it was first and last seen."""

    fault: str
    first_seen: str
    last_seen: str


class ReceiptBook:
    """The file; several processes may have it open. It is a context manager.

    Parameters
    ----------
    path : Path
        Made, readable by its owner only, if it is not there.

    Raises
    ------
    KeyStoreError
        If it is no such file.
    """

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)
        self._path = path
        self._connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        with self._explaining():
            # A receipt that was sent must not be lost to a power failure: its successor would have another time.
            for pragma in ("journal_mode = WAL", "synchronous = FULL"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def keep_all(self, receipts: Mapping[int, bytes]) -> dict[int, bytes]:
        """Keep orders' receipts, by number, and return them, or those that were kept before."""
        with self._explaining():
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(
                "INSERT OR IGNORE INTO receipts (number, receipt) VALUES (?, ?)", list(receipts.items())
            )
            self._connection.execute("COMMIT")
        kept = self.read_all(list(receipts))
        if kept.keys() != receipts.keys():
            raise KeyStoreError(f"{self._path} does not keep what is written to it; check its disk")
        return kept

    def read(self, number: int) -> bytes | None:
        """Return an order's receipt; None if there is none."""
        return self.read_all([number]).get(number)

    def read_all(self, numbers: Sequence[int]) -> dict[int, bytes]:
        """Return the receipts of some orders by number; those that have none are left out."""
        query = "SELECT number, receipt FROM receipts WHERE number IN (SELECT value FROM json_each(?))"
        with self._explaining():
            return dict(self._connection.execute(query, (json.dumps(list(numbers)),)).fetchall())

    def read_unproven(self, limit: int, *, without: Collection[int] = ()) -> dict[int, bytes]:
        """Return the oldest receipts of which the coordinator has not shown that they are in its log, by number."""
        query = (
            "SELECT number, receipt FROM receipts WHERE included = 0 "
            "AND number NOT IN (SELECT value FROM json_each(?)) ORDER BY number LIMIT ?"
        )
        with self._explaining():
            return dict(self._connection.execute(query, (json.dumps(list(without)), limit)).fetchall())

    def count(self) -> tuple[int, int]:
        """Return how many receipts there are, and how many of them are known to be in the log."""
        with self._explaining():
            row = self._connection.execute("SELECT count(*), coalesce(sum(included), 0) FROM receipts").fetchone()
        return int(row[0]), int(row[1])

    def head(self) -> WitnessedHead | None:
        """Return the last head that was checked; None if there has been none."""
        with self._explaining():
            row = self._connection.execute("SELECT size, root FROM head").fetchone()
        return None if row is None else WitnessedHead(row[0], row[1])

    def advance(self, head: WitnessedHead, envelope: bytes, proven: list[int]) -> None:
        """Keep a head that was checked, and which receipts it was shown to hold; a larger head is never replaced."""
        # A head that a power failure loses leaves the one before it, which the log extends as well.
        with self._explaining(), not_waiting_for_disk(self._connection):
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(
                "INSERT INTO head VALUES (1, ?, ?, ?) ON CONFLICT DO UPDATE SET size = excluded.size, "
                "root = excluded.root, envelope = excluded.envelope WHERE excluded.size > size",
                (head.size, head.root, envelope),
            )
            self._connection.executemany(
                "UPDATE receipts SET included = 1 WHERE number = ?", [(number,) for number in proven]
            )
            self._connection.execute("COMMIT")

    def raise_alarm(self, fault: str, at: datetime, evidence: bytes) -> None:
        """Keep a fault of the log for good, with the head that shows it."""
        with self._explaining():
            self._connection.execute(
                "INSERT INTO alarms (fault, first_seen, last_seen, envelope) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET last_seen = excluded.last_seen",
                (fault, write_time(at), write_time(at), evidence),
            )

    def alarms(self) -> list[Alarm]:
        """Return every alarm, oldest first."""
        with self._explaining():
            rows = self._connection.execute("SELECT fault, first_seen, last_seen FROM alarms ORDER BY id").fetchall()
        return [Alarm(*row) for row in rows]

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.rollback()
            raise KeyStoreError(f"{self._path} cannot be used ({error}); check its disk or restore a backup") from None


def tombstone_commitment(store: KeyStore, target: Target) -> bytes:
    """Return the 32-byte commitment to the tombstones that an order for a target leaves at a site.

    Tombstones are hashes under a key that only the store has: the site can show later what it committed to, and nobody
    else can tell whom they stand for.
    """
    if isinstance(target, Records):
        named = sorted(map(store.reference_hashes.record, target.references))
    else:
        named = [store.reference_hashes.subject(target.reference)] if isinstance(target, Subject) else []
    return hashlib.sha256(b"fedmunkey tombstones v1\x00" + b"".join(named)).digest()
