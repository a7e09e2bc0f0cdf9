"""Tables of a key store, how a connection to one is set up, and the version of both."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedmunkey.common.errors import KeyStoreError

SCHEMA_VERSION = 9
"""Written to `PRAGMA user_version`; raised with every change of the tables."""

TAKEN_OVER = 5
"""The oldest version that `taking_over` brings up to date."""

CONTENTS = ("keys", "inputs", "tokens", "kept_tokens", "ids")
"""The tables whose rows a deletion overwrites instead of removing."""

_BUSY_SECONDS = 30.0

APPLIED_ORDERS = """
-- `document`: what `Acknowledgement.to_json` gives. `finished`: the log is empty as well; from then on the document is
-- the site's answer and does not change. Before, it says that nothing bounds what remains, and `last_training` is the
-- last one that had been released when the deletion was committed; NULL if the document was an answer already.
-- `request`: the digest of what was asked for, by which the request is known under any number; NULL if it was not kept.
CREATE TABLE applied_orders (
    number INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL,
    document TEXT NOT NULL,
    last_training INTEGER,
    finished INTEGER NOT NULL DEFAULT 0,
    acknowledged INTEGER NOT NULL DEFAULT 0,
    request BLOB
) STRICT;
"""
REMEMBERED_ANSWERS = """
-- In a restored store: answers that the site gave to orders before, and gives again when they are replayed.
CREATE TABLE remembered_answers (number INTEGER PRIMARY KEY, document TEXT NOT NULL) STRICT;
"""

RECORDS = """
-- AUTOINCREMENT: the number of a deleted entry is never given to another record.
-- The two hashes find the record's and the subject's id again. Its row moves, and may leave copies of itself in spare
-- pages, so there is nothing in it that a deletion must reach.
-- `image_hash` knows the image again, whatever id it comes back with.
-- `influence`: what shared weights that left the site may hold of the record.
CREATE TABLE records (
    entry INTEGER PRIMARY KEY AUTOINCREMENT,
    record_hash BLOB NOT NULL UNIQUE,
    subject_hash BLOB NOT NULL,
    image_hash BLOB NOT NULL,
    split TEXT NOT NULL CHECK (split IN ('train', 'val', 'test')),
    influence TEXT NOT NULL DEFAULT 'none' CHECK (influence IN ('none', 'bounded', 'unbounded')),
    listed INTEGER NOT NULL DEFAULT 0
) STRICT;
"""
RECORD_INDEXES = """
CREATE INDEX records_by_subject ON records (subject_hash);
CREATE INDEX records_by_split ON records (split, entry);
CREATE INDEX records_without_list ON records (entry) WHERE listed = 0;
"""

KEPT_TOKENS = """
-- Tokens that go with the shared weights of a digest, from which the site answers while training changes others.
-- An entry that has none has not been there, or not been trained, when they were kept.
CREATE TABLE kept_tokens (entry INTEGER PRIMARY KEY, content BLOB NOT NULL) STRICT;
CREATE TABLE kept_for (only INTEGER PRIMARY KEY CHECK (only = 1), digest TEXT NOT NULL) STRICT;
"""

NEIGHBOURS = """
-- `masked`: how alike they are, see `similarity_masks.py`.
CREATE TABLE neighbours (
    entry INTEGER NOT NULL REFERENCES records ON DELETE CASCADE,
    neighbour INTEGER NOT NULL REFERENCES records ON DELETE CASCADE,
    masked INTEGER NOT NULL,
    PRIMARY KEY (entry, neighbour)
) STRICT, WITHOUT ROWID;
"""
NEIGHBOURS_INDEX = "CREATE INDEX neighbours_of ON neighbours (neighbour);"

_TABLES = f"""
-- `hash_key` and `noise_key` are encrypted under the master key, so that a backup cannot be asked whom it holds.
-- `master_key`: where it is kept; empty, beside the store. `restored`: from a backup, and not caught up with deletions.
CREATE TABLE description (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    site TEXT NOT NULL,
    encoder TEXT NOT NULL,
    key_size INTEGER NOT NULL,
    input_kind TEXT NOT NULL CHECK (input_kind IN ('patches', 'frozen')),
    input_shape TEXT NOT NULL,
    exemplar_size INTEGER NOT NULL,
    list_length INTEGER NOT NULL,
    guarantee TEXT NOT NULL CHECK (guarantee IN ('exact', 'certified', 'empirical')),
    epsilon REAL NOT NULL,
    delta REAL NOT NULL,
    hash_key BLOB NOT NULL,
    noise_key BLOB,
    master_key TEXT NOT NULL,
    restored INTEGER NOT NULL DEFAULT 0,
    generation INTEGER NOT NULL DEFAULT 0
) STRICT;

{RECORDS}
{RECORD_INDEXES}
-- The contents of entries: rows are added at the end, changed in place and never removed while others remain, so that
-- SQLite never moves one and no copy of it is left behind. A deletion overwrites them with zeros. They are encrypted
-- under the record's key, which lies in another file; a token of zeros is one that no training has written.
-- An input is what the image path reads: an image, or a frozen encoder's feature tokens. With the ids, the record's
-- and the subject's, are its label and consent.
CREATE TABLE keys (entry INTEGER PRIMARY KEY, content BLOB NOT NULL) STRICT;
CREATE TABLE inputs (entry INTEGER PRIMARY KEY, content BLOB NOT NULL) STRICT;
CREATE TABLE tokens (entry INTEGER PRIMARY KEY, content BLOB NOT NULL) STRICT;
CREATE TABLE ids (entry INTEGER PRIMARY KEY, content BLOB NOT NULL) STRICT;
{KEPT_TOKENS}
{NEIGHBOURS}
{NEIGHBOURS_INDEX}

-- The hashes of what was deleted; they name nobody, and refuse the same record if it is enrolled again.
-- `influence`: that of the deleted record, which the same record begins with if new consent lets it in.
CREATE TABLE tombstones (
    hash BLOB PRIMARY KEY,
    influence TEXT NOT NULL DEFAULT 'none' CHECK (influence IN ('none', 'bounded', 'unbounded'))
) STRICT, WITHOUT ROWID;

-- Training with noise. `released`: what it made may have left the site; a row without it stands for nothing spent.
CREATE TABLE noisy_training (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    round INTEGER NOT NULL,
    steps INTEGER NOT NULL,
    sampling_rate REAL NOT NULL,
    noise_multiplier REAL NOT NULL,
    released INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The epsilons of the training up to a row above, kept because computing one takes up to a second.
CREATE TABLE privacy_losses (
    last_training INTEGER NOT NULL,
    delta REAL NOT NULL,
    records INTEGER NOT NULL,
    epsilon REAL NOT NULL,
    PRIMARY KEY (last_training, delta, records)
) STRICT, WITHOUT ROWID;

{APPLIED_ORDERS}
-- Entries that an order has deleted and whose record keys are still to be destroyed; the commit cannot do it by itself.
CREATE TABLE doomed_record_keys (entry INTEGER PRIMARY KEY, number INTEGER NOT NULL) STRICT;

-- By what the bytes of an order's deleted contents would be known again, see `residue.py`; encrypted as `hash_key`.
CREATE TABLE fingerprints (number INTEGER PRIMARY KEY, content BLOB NOT NULL, windows INTEGER NOT NULL) STRICT;

{REMEMBERED_ANSWERS}"""

_INDEXES = """
-- As of when the store knows its key file: one of a lower number is an older copy.
CREATE TABLE IF NOT EXISTS key_file_epoch (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    number INTEGER NOT NULL,
    mark BLOB NOT NULL
) STRICT;
-- How many holds and opt-outs the journal has had: one that was lost is missed.
CREATE TABLE IF NOT EXISTS instructions_known (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    known INTEGER NOT NULL
) STRICT;
-- How many records an order has erased whose corrected ones took their place.
CREATE TABLE IF NOT EXISTS rectified (number INTEGER PRIMARY KEY, records INTEGER NOT NULL) STRICT;
-- Few orders wait for their end or for the service, so they are found without reading those that are done.
CREATE INDEX IF NOT EXISTS orders_unfinished ON applied_orders (number) WHERE finished = 0;
CREATE INDEX IF NOT EXISTS orders_unacknowledged ON applied_orders (number) WHERE acknowledged = 0;
CREATE INDEX IF NOT EXISTS orders_by_digest ON applied_orders (request, number);
"""


def connect(path: Path) -> sqlite3.Connection:
    """Open a connection with the pragmas that deletion depends on.

    Deleted content is overwritten with zeros (`secure_delete`), nothing derived spills into temporary files, and a
    commit is on the disk before it returns.
    """
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    for pragma in (
        # Of a new file. A deletion writes the pages of all lists that name the entry, so smaller ones make it faster.
        "page_size = 1024",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "secure_delete = ON",
        "temp_store = MEMORY",
        f"cache_size = {-64 * 1024}",
    ):
        connection.execute(f"PRAGMA {pragma}")
    return connection


@contextmanager
def not_waiting_for_disk(connection: sqlite3.Connection) -> Iterator[None]:
    """Let commits return before they are on the disk, for notes that are made again if they are lost."""
    connection.execute("PRAGMA synchronous = NORMAL")
    try:
        yield
    finally:
        connection.execute("PRAGMA synchronous = FULL")


@contextmanager
def not_following_references(connection: sqlite3.Connection) -> Iterator[None]:
    """Leave foreign keys unchecked, for a transaction that empties every table that has one."""
    connection.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        connection.execute("PRAGMA foreign_keys = ON")


@contextmanager
def explaining_locks() -> Iterator[None]:
    """Turn what keeps SQLite from writing (another process that writes, a full disk) into `KeyStoreError`."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise KeyStoreError(
            f"the key store cannot be written ({error}); try again when no other process is busy with it, "
            "and check the free space on its disk"
        ) from None


_OF_THE_SURROUNDINGS = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    }
)


def cannot_be_used(error: sqlite3.DatabaseError) -> bool:
    """Return whether an error is about what surrounds a file (its disk, permissions, locks) and not what is in it."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in _OF_THE_SURROUNDINGS


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """Open a write transaction that is committed at its end, and taken back if anything is raised in it.

    Raises `KeyStoreError` if another process writes for longer than the connection waits, or the disk is full.
    """
    with explaining_locks(), transaction(connection):
        yield


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Open a write transaction as `writing`; raises `sqlite3.OperationalError` where that explains."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # On a full disk SQLite has taken the transaction back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def create_tables(connection: sqlite3.Connection) -> None:
    """Make the tables of an empty store and set its version."""
    connection.executescript(f"BEGIN; {_TABLES} {_INDEXES} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")


def create_indexes(connection: sqlite3.Connection) -> None:
    """Add the table and the indexes that a store may have been made without; where they are, nothing is written."""
    connection.executescript(_INDEXES)


def read_version(connection: sqlite3.Connection) -> int:
    """Return the schema version of a store; 0 for a file that is none."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def check_version(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that is no key store or has other tables than this version knows, with `KeyStoreError`."""
    if read_version(connection) not in range(TAKEN_OVER, SCHEMA_VERSION + 1):
        raise KeyStoreError(
            f"{path} has key store schema {read_version(connection)}, this version reads {SCHEMA_VERSION}; "
            "open it with the version that wrote it, or move it and its key file away, leave its journal and master "
            "key, and enrol the records again"
        )


def set_aside(connection: sqlite3.Connection, table: str, after: int) -> None:
    """Give the rows of a table with numbers above one others below 0 that no row has, within the caller's transaction.

    They keep their order, and `after` is not negative.
    """
    low, high = connection.execute(f"SELECT min(0, min(number)), max(number) FROM {table}").fetchone()  # noqa: S608
    if high is not None:
        shift = f"UPDATE {table} SET number = number - ? WHERE number > ?"  # noqa: S608 (a table's name)
        connection.execute(shift, (high + 1 - low, after))
