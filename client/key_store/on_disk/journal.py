"""What a site must not forget even if its key store goes back to a backup: one SQLite file beside the store.

It holds no id: the answers to deletion orders and their receipts, what the site has seen of the coordinator's log, what
training has spent of the patients' privacy, what shared weights may hold of records, which were deleted, and when
backups were taken. A row is on the disk before what it is about counts; rows are only ever added, and of two the first
stays. A store that is made in the place of a lost one takes over what its journal says (`creation.py`).
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Any

from fedmunkey.client.key_store.on_disk.schema import (
    cannot_be_used,
    connect,
    not_waiting_for_disk,
    set_aside,
    transaction,
)
from fedmunkey.common.deletions.words import Acknowledgement
from fedmunkey.common.errors import KeyStoreError
from fedmunkey.common.private_files import locked_folder, sync_folder

Row = Sequence[Any]

LOST_HEAD: Row = (1, 0, b"", b"")
"""The row of a journal that takes the place of one which was lost, with what it had seen of the log."""


class Kept(StrEnum):
    """The tables that a store adds to; those of receipts and of the log are `client.deletions.receipt_book`'."""

    ANSWERS = "answers"
    TRAININGS = "trainings"
    TAKEN_BACK = "trainings_taken_back"
    INFLUENCES = "influences"
    BACKUPS = "backups"
    EPOCHS = "key_file_epochs"
    HEAD = "head"
    HASH_KEYS = "hash_keys"
    REMEMBERED = "remembered"
    TARGETS = "targets"


_TABLES = """
-- What was carried out. `document`: what `Acknowledgement.to_json` gives. `request`: the request's digest, by which it
-- is known again whatever its order's number; NULL if an earlier version has not kept it.
CREATE TABLE answers (number INTEGER NOT NULL, document TEXT NOT NULL, request BLOB UNIQUE) STRICT;

-- `receipt` never changes: an order has one receipt. `included`: the coordinator has shown that it is in the log.
CREATE TABLE receipts (
    -- Below 0: of an order that the ledger has lost.
    number INTEGER PRIMARY KEY,
    receipt BLOB NOT NULL,
    included INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX receipts_to_prove ON receipts (number) WHERE included = 0;

-- The last head of the log that was checked, whole; of size 0 where there may have been one that was lost.
CREATE TABLE head (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    envelope BLOB NOT NULL
) STRICT;

-- What the coordinator has shown that cannot be true; rows are never removed by a program.
CREATE TABLE alarms (
    id INTEGER PRIMARY KEY,
    fault TEXT NOT NULL UNIQUE,
    first_seen TEXT NOT NULL,
    last_seen TEXT NOT NULL,
    envelope BLOB NOT NULL
) STRICT;

-- Training with noise that was released, and the numbers of that whose weights were not sent after all.
CREATE TABLE trainings (
    id INTEGER PRIMARY KEY,
    round INTEGER NOT NULL,
    steps INTEGER NOT NULL,
    sampling_rate REAL NOT NULL,
    noise_multiplier REAL NOT NULL
) STRICT;
CREATE TABLE trainings_taken_back (id INTEGER PRIMARY KEY) STRICT;

-- What shared weights that left may hold, of all training records or of those with permanent consent.
CREATE TABLE influences (
    influence TEXT NOT NULL,
    permanent_only INTEGER NOT NULL,
    PRIMARY KEY (influence, permanent_only)
) STRICT, WITHOUT ROWID;

CREATE TABLE backups (at TEXT NOT NULL, last_order INTEGER NOT NULL) STRICT;
"""
_LATER_TABLES = """
-- Each time that keys were destroyed in the key file: an older copy of it is known by that.
CREATE TABLE IF NOT EXISTS key_file_epochs (number INTEGER PRIMARY KEY, mark BLOB NOT NULL) STRICT;

-- Keys of the store's hashes, the last in use, sealed with the master key: without it nobody is found by a guessed id.
CREATE TABLE IF NOT EXISTS hash_keys (id INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT;

-- Every head of the log that was checked, with the site's own time: a log that was restored from a copy still holds
-- what the copy held.
CREATE TABLE IF NOT EXISTS heads (size INTEGER PRIMARY KEY, root BLOB NOT NULL, at TEXT NOT NULL) STRICT;

-- What requests named that were carried out, as `ReferenceHashes.commitment` says it, and their digests.
CREATE TABLE IF NOT EXISTS targets (
    request_id TEXT NOT NULL,
    commitment BLOB NOT NULL,
    request BLOB NOT NULL,
    PRIMARY KEY (request_id, commitment, request)
) STRICT, WITHOUT ROWID;

-- Holds and opt-outs that the site believes, by their digests, with their numbers in the ledger; `sealed`: the
-- instruction, encrypted under the store's own key.
CREATE TABLE IF NOT EXISTS instructions (
    digest BLOB PRIMARY KEY,
    number INTEGER NOT NULL,
    sealed BLOB NOT NULL
) STRICT;

-- By their hashes: records, images and subjects of which shared weights that left may hold something, and tombstones.
CREATE TABLE IF NOT EXISTS remembered (
    hash BLOB NOT NULL,
    influence TEXT NOT NULL,
    deleted INTEGER NOT NULL,
    PRIMARY KEY (hash, influence, deleted)
) STRICT, WITHOUT ROWID;
"""


class Journal:
    """The journal of a store, by the store's path; several processes may have it open.

    Whoever adds to a journal that is lost fails: it is never made anew here, where nobody would notice.
    """

    def __init__(self, store: Path) -> None:
        self.path = store.with_suffix(".journal")
        self._opened: tuple[tuple[int, int], sqlite3.Connection] | None = None

    def create(self, rows: Mapping[Kept, Sequence[Row]] | None = None) -> None:
        """Make the file with some rows, complete or not at all.

        Raises `FileExistsError` if there is one, and `KeyStoreError` if it cannot be written.
        """
        with self._made(rows or {}) as made, locked_folder(self.path.parent):
            if not self.path.exists():
                # Of a journal that is lost; SQLite would take it for this one's.
                for file in self.files[1:]:
                    file.unlink(missing_ok=True)
            os.link(made, self.path)

    def replace(self, rows: Mapping[Kept, Sequence[Row]]) -> None:
        """Put a journal with some rows in the place of the file that is there; raises `KeyStoreError` as `create`."""
        with self._made(rows) as made:
            made.replace(self.path)

    def add(self, kind: Kept, *rows: Row) -> None:
        """Add rows and bring them to the disk together; raises `KeyStoreError` as `writing`."""
        self.add_all({kind: rows})

    def add_all(self, rows: Mapping[Kept, Sequence[Row]]) -> None:
        """Add rows of several kinds and bring them to the disk together; raises `KeyStoreError` as `writing`."""
        with self.writing() as connection:
            for kind, of_kind in rows.items():
                _insert(connection, kind, of_kind)

    @contextmanager
    def writing(self, *, waiting: bool = True) -> Iterator[sqlite3.Connection]:
        """Open a write transaction that is on the disk when it ends, unless nobody waits for that.

        Raises `KeyStoreError` if there is no file or it cannot be written.
        """
        connection = self._connect()
        patience = nullcontext() if waiting else not_waiting_for_disk(connection)
        with self._explaining(), patience, transaction(connection):
            yield connection

    def read(self, kind: Kept) -> list[tuple[Any, ...]]:
        """Return the rows of one kind, oldest first."""
        return self.query(f"SELECT * FROM {kind} ORDER BY 1")  # noqa: S608 (a table's name)

    def query(self, query: str, values: Row = ()) -> list[tuple[Any, ...]]:
        """Return the rows that a query finds; raises `KeyStoreError` if there is no file or it cannot be read."""
        connection = self._connect()
        with self._explaining():
            return connection.execute(query, values).fetchall()

    def has_seen_log(self) -> bool | None:
        """Return whether there is a head of the coordinator's log; None if there may have been one, and it was lost."""
        query = "SELECT (SELECT size FROM head), EXISTS (SELECT 1 FROM receipts WHERE included = 1)"
        ((size, included),) = self.query(query)
        return True if size else None if size == 0 or included else False

    def forget_lost_log(self) -> None:
        """Begin with whatever head comes next, which must hold all receipts."""
        with self.writing() as connection:
            connection.execute("DELETE FROM head WHERE size = 0")
            connection.execute("UPDATE receipts SET included = 0 WHERE NOT EXISTS (SELECT 1 FROM head)")

    def find_answer(self, request: bytes) -> Acknowledgement | None:
        """Return how a request was answered, by its digest; None if it was not carried out; raises as `query`."""
        rows = self.query("SELECT document FROM answers WHERE request = ?", (request,))
        return Acknowledgement.from_json(rows[0][0]) if rows else None

    def find_answer_to(self, request_id: str, commitment: bytes) -> Acknowledgement | None:
        """Return how a request of an id was answered last that named the same as another; raises as `query`."""
        rows = self.query(
            "SELECT document FROM targets JOIN answers USING (request) WHERE request_id = ? AND commitment = ? "
            "ORDER BY answers.rowid DESC LIMIT 1",
            (request_id, commitment),
        )
        return Acknowledgement.from_json(rows[0][0]) if rows else None

    def set_aside(self, after: int, was: bytes | None = None) -> None:
        """Give the receipts of orders above a number numbers below 0, so that other orders can have theirs.

        Where the first of them is not what it `was` any more, another program has done that meanwhile.
        """
        with self.writing() as connection:
            first = connection.execute("SELECT receipt FROM receipts WHERE number = ?", (after + 1,)).fetchone()
            if was is not None and first != (was,):
                return
            set_aside(connection, "receipts", after)

    def is_damaged(self) -> bool:
        """Return whether there is a file that is no journal; one that its surroundings keep from being read may be."""
        if not self.path.exists():
            return False
        try:
            with closing(_open(self.path)) as connection:
                for kind in Kept:
                    connection.execute(f"SELECT count(*) FROM {kind}")  # noqa: S608 (a table's name)
        except sqlite3.DatabaseError as error:
            return not cannot_be_used(error)
        return False

    def close(self) -> None:
        """Close the file; it is opened again by whatever needs it."""
        if self._opened is not None:
            self._opened[1].close()
            self._opened = None

    def _connect(self) -> sqlite3.Connection:
        """Return a connection to the file that is there, even if another has taken its place meanwhile."""
        with self._explaining():
            found = self.path.stat()
            place = (found.st_dev, found.st_ino)
            if self._opened is None or self._opened[0] != place:
                self.close()
                self._opened = place, _open(self.path)
            return self._opened[1]

    @contextmanager
    def _made(self, rows: Mapping[Kept, Sequence[Row]]) -> Iterator[Path]:
        """Give a journal beside the one that it shall become."""
        made = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        try:
            with self._explaining():
                made.touch(0o600, exist_ok=False)
                with closing(connect(made)) as connection:
                    connection.executescript(f"BEGIN; {_TABLES} {_LATER_TABLES} COMMIT;")
                    with transaction(connection):
                        for kind, of_kind in rows.items():
                            _insert(connection, kind, of_kind)
                yield made
                sync_folder(self.path.parent)
        finally:
            for suffix in ("", "-wal", "-shm"):
                made.with_name(made.name + suffix).unlink(missing_ok=True)

    @property
    def files(self) -> list[Path]:
        """The journal's file, and those that SQLite may keep beside it."""
        return [self.path.with_name(self.path.name + suffix) for suffix in ("", "-wal", "-shm")]

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except FileExistsError:
            raise
        except FileNotFoundError:
            raise KeyStoreError(
                f"the journal {self.path} is missing; put it back, or stop every process of the site and run "
                "munkey-client status, which writes it again from the key store"
            ) from None
        except (OSError, sqlite3.DatabaseError) as error:
            if isinstance(error, OSError) or cannot_be_used(error):
                reason = error.strerror if isinstance(error, OSError) else error
                raise KeyStoreError(
                    f"the journal {self.path} cannot be written ({reason}); check its permissions and the free space "
                    "on its disk"
                ) from None
            raise KeyStoreError(
                f"the journal {self.path} is damaged ({error}); put it back from its disk's mirror, or move it away: "
                "it is then written again from the key store"
            ) from None


def _open(path: Path) -> sqlite3.Connection:
    """Connect to a journal; what it was made without is added, and where all is there, nothing is written."""
    connection = connect(path)
    connection.executescript(_LATER_TABLES)
    return connection


def _insert(connection: sqlite3.Connection, kind: Kept, rows: Sequence[Row]) -> None:
    for row in rows:
        marks = ", ".join("?" for _ in row)
        connection.execute(f"INSERT OR IGNORE INTO {kind} VALUES ({marks})", row)  # noqa: S608 (a table's name)
