"""Carrying out a deletion order: one transaction, and then no file that holds the bytes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import nullcontext

from client.key_store.identities import ReferenceHashes
from client.key_store.schema import CONTENTS, explaining_locks, not_following_references, not_waiting_for_disk
from common.deletion import Acknowledgement, DeletionOrder, Records, SiteState, Subject, Target, WholeSite
from common.errors import KeyStoreError
from common.guarantees import Guarantee


def apply_order(
    connection: sqlite3.Connection, order: DeletionOrder, guarantee: Guarantee, hashes: ReferenceHashes
) -> Acknowledgement:
    """Delete what an order names, leave tombstones, and empty the write-ahead log.

    Parameters
    ----------
    connection : sqlite3.Connection
        A key store's connection, outside of a transaction.
    order : DeletionOrder
        What is to be deleted.
    guarantee : Guarantee
        What the deletion means for the shared weights.
    hashes : ReferenceHashes
        The store's own.

    Returns
    -------
    Acknowledgement
        The one that was stored, if the order had been applied before.

    Raises
    ------
    KeyStoreError
        If another process keeps the store from being written or the log from being emptied.
    """
    start = time.perf_counter()
    everything = isinstance(order.request.target, WholeSite)
    with explaining_locks(), not_following_references(connection) if everything else nullcontext():
        connection.execute("BEGIN IMMEDIATE")
        try:
            if not _is_applied(connection, order.number):
                _delete(connection, order, guarantee, hashes)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        _finish(connection, order.number, start)
    return next(read_acknowledgements(connection, order.site, f"number = {order.number}"))


def finish_interrupted(connection: sqlite3.Connection) -> None:
    """Empty the log after deletions that were committed and then interrupted; raises as `apply_order` does."""
    unfinished = connection.execute("SELECT number FROM applied_orders WHERE finished = 0").fetchall()
    for (number,) in unfinished:
        with explaining_locks():
            _finish(connection, number, time.perf_counter())


def read_acknowledgements(connection: sqlite3.Connection, site: str, condition: str) -> Iterator[Acknowledgement]:
    """Yield the answers to applied orders that meet a condition in SQL, oldest first."""
    columns = "number, request_id, state, records, entries, guarantee, seconds, reason"
    query = f"SELECT {columns} FROM applied_orders WHERE {condition} ORDER BY number"  # noqa: S608 (callers' constants)
    for number, request_id, state, records, entries, guarantee, seconds, reason in connection.execute(query).fetchall():
        yield Acknowledgement(
            number=number,
            site=site,
            request_id=request_id,
            state=SiteState(state),
            records=records,
            entries=entries,
            guarantee=Guarantee(guarantee),
            seconds=seconds,
            reason=reason,
        )


def _finish(connection: sqlite3.Connection, number: int, start: float) -> None:
    """Empty the log and fix the answer; whoever comes first fixes it, and the others find it so."""
    (records,) = connection.execute("SELECT records FROM applied_orders WHERE number = ?", (number,)).fetchone()
    if records:
        _checkpoint(connection)
    elapsed = time.perf_counter() - start
    with not_waiting_for_disk(connection):
        connection.execute(
            "UPDATE applied_orders SET seconds = ?, finished = 1 WHERE number = ? AND finished = 0", (elapsed, number)
        )


def _checkpoint(connection: sqlite3.Connection) -> None:
    """Move the write-ahead log into the database, where deleted content is zeroed, and truncate the log.

    Raises
    ------
    KeyStoreError
        If a reader in another process is in the way for longer than the connection waits.
    """
    (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise KeyStoreError("another process keeps reading the key store, so its log cannot be emptied; try again")


def _delete(
    connection: sqlite3.Connection, order: DeletionOrder, guarantee: Guarantee, hashes: ReferenceHashes
) -> None:
    target = order.request.target
    found = _select(connection, target, hashes)
    buried = {record_hash for _, record_hash, _ in found}
    if isinstance(target, Records):
        buried.update(map(hashes.record, target.references))
    elif isinstance(target, Subject):
        buried.add(hashes.subject(target.reference))
    connection.executemany("INSERT OR IGNORE INTO tombstones (hash) VALUES (?)", [(hash_,) for hash_ in sorted(buried)])
    if isinstance(target, WholeSite):
        for table in ("neighbours", *CONTENTS, "records"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 (names of tables)
    else:
        numbers = [(entry,) for entry, _, _ in found]
        for table in CONTENTS:
            overwrite = f"UPDATE {table} SET content = zeroblob(length(content)) WHERE entry = ?"  # noqa: S608
            connection.executemany(overwrite, numbers)
        connection.executemany("DELETE FROM records WHERE entry = ?", numbers)
    state = SiteState.ERASED if found else SiteState.NOTHING_HELD
    entries = sum(split == "train" for _, _, split in found)
    connection.execute(
        "INSERT INTO applied_orders (number, request_id, state, records, entries, guarantee, seconds, reason) "
        "VALUES (?, ?, ?, ?, ?, ?, 0, '')",
        (order.number, order.request.request_id, state.value, len(found), entries, guarantee.value),
    )
    if entries:
        connection.execute("UPDATE description SET generation = generation + 1")


def _select(connection: sqlite3.Connection, target: Target, hashes: ReferenceHashes) -> list[tuple[int, bytes, str]]:
    """Return entry, hash and split of every record that a target names."""
    columns = "SELECT entry, record_hash, split FROM records"
    if isinstance(target, Records):
        queries = (
            connection.execute(f"{columns} WHERE record_hash = ?", (hashes.record(reference),)).fetchone()
            for reference in sorted(target.references)
        )
        return [row for row in queries if row is not None]
    if isinstance(target, Subject):
        return connection.execute(f"{columns} WHERE subject_hash = ?", (hashes.subject(target.reference),)).fetchall()
    return connection.execute(columns).fetchall()


def _is_applied(connection: sqlite3.Connection, number: int) -> bool:
    return connection.execute("SELECT 1 FROM applied_orders WHERE number = ?", (number,)).fetchone() is not None
