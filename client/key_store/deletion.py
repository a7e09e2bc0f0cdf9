"""Carrying out deletion orders: one transaction, and then no file that holds the bytes."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

from client.key_store.answers import is_answered, read_acknowledgements, write_refusal
from client.key_store.database import StoreDatabase
from client.key_store.journal import ANSWER, ANSWER_COLUMNS
from client.key_store.privacy import PrivacyAccount
from client.key_store.removal import remove
from client.key_store.schema import explaining_locks, not_following_references, not_waiting_for_disk, writing
from common.deletion import Acknowledgement, DeletionOrder, WholeSite
from common.errors import KeyStoreError
from common.failpoints import Failpoint, hit
from common.guarantees import Guarantee

Objection = Callable[[DeletionOrder], str]
"""Says why an order is not to be carried out; empty if it is."""

_PAUSE_SECONDS = 0.01


def apply_orders(
    database: StoreDatabase, privacy: PrivacyAccount, orders: Sequence[DeletionOrder], objection: Objection
) -> list[Acknowledgement]:
    """Delete what orders name, leave tombstones, destroy the records' keys, and empty the write-ahead log.

    All of them are one transaction and wait for the disk together; one for a whole site is a transaction of its own.
    Returns an answer for each order: the one that was stored, if it had been answered before. Raises `KeyStoreError` if
    another process keeps the store from being written or the log from being emptied.
    """
    answers: list[Acknowledgement] = []
    for together in _transactions(orders):
        answers += _apply_together(database, privacy, together, objection)
    return answers


def finish_interrupted(database: StoreDatabase, privacy: PrivacyAccount) -> None:
    """Finish deletions that were committed and then interrupted; raises as `apply_orders` does."""
    unfinished = database.connection.execute("SELECT number FROM applied_orders WHERE finished = 0").fetchall()
    if unfinished:
        with explaining_locks():
            _finish(database, privacy, [number for (number,) in unfinished], time.perf_counter())


def _transactions(orders: Sequence[DeletionOrder]) -> Iterator[list[DeletionOrder]]:
    """Yield the orders that share a transaction; emptying a store leaves references unchecked, so nothing else may."""
    together: list[DeletionOrder] = []
    for order in orders:
        whole = isinstance(order.request.target, WholeSite)
        if whole and together:
            yield together
            together = []
        together.append(order)
        if whole:
            yield together
            together = []
    if together:
        yield together


def _apply_together(
    database: StoreDatabase, privacy: PrivacyAccount, orders: Sequence[DeletionOrder], objection: Objection
) -> list[Acknowledgement]:
    connection, start = database.connection, time.perf_counter()
    refused: set[int] = set()
    everything = isinstance(orders[0].request.target, WholeSite)
    with explaining_locks(), not_following_references(connection) if everything else nullcontext():
        with writing(connection):
            for order in orders:
                if is_answered(connection, order.number):
                    continue
                if reason := objection(order):
                    write_refusal(connection, order, reason)
                    refused.add(order.number)
                    continue
                remove(database, privacy, order)
                hit(Failpoint.APPLY_BEFORE_COMMIT)
        applied = [order.number for order in orders if order.number not in refused]
        _hit_each(Failpoint.APPLY_AFTER_COMMIT, applied)
        if applied:
            _finish(database, privacy, applied, start)
        _hit_each(Failpoint.APPLY_FINISHED, applied)
    numbers = json.dumps([order.number for order in orders])
    condition = "number IN (SELECT value FROM json_each(?))"
    return list(read_acknowledgements(connection, database.description, condition, numbers))


def _hit_each(point: Failpoint, numbers: Sequence[int]) -> None:
    """Come by a failpoint once for each order, so that a plan means the same whether orders share a transaction."""
    for _ in numbers:
        hit(point)


def _finish(database: StoreDatabase, privacy: PrivacyAccount, numbers: Sequence[int], start: float) -> None:
    """Destroy keys, empty the log and fix the answers; whoever comes first fixes them, and the others find them so."""
    connection = database.connection
    chosen = "(SELECT value FROM json_each(:numbers))"
    named = {"numbers": json.dumps(list(numbers))}
    rows = connection.execute(
        f"SELECT number, records, finished FROM applied_orders WHERE number IN {chosen}",  # noqa: S608 (constants)
        named,
    ).fetchall()
    doomed = connection.execute(f"SELECT entry FROM doomed_keys WHERE number IN {chosen}", named).fetchall()  # noqa: S608
    if doomed:
        database.ciphers.destroy(entry for (entry,) in doomed)
    if any(records for _, records, _ in rows):
        _checkpoint(connection)
    _hit_each(Failpoint.APPLY_AFTER_ERASURE, numbers)
    open_ = [number for number, _, finished in rows if not finished]
    if not open_:
        return
    seconds = time.perf_counter() - start
    query = f"SELECT {', '.join(ANSWER_COLUMNS)} FROM applied_orders WHERE number = ?"  # noqa: S608 (constants)
    answers = []
    for number in open_:
        answer = dict(zip(ANSWER_COLUMNS, connection.execute(query, (number,)).fetchone(), strict=True))
        answer["record_epsilon"], answer["subject_epsilon"] = _epsilons(connection, number, privacy)
        answers.append({**answer, "seconds": seconds})
    # Before the answers can be given: if this fails, on a full disk, they are not, and the orders stay pending.
    database.journal.add_all(ANSWER, answers)
    with not_waiting_for_disk(connection), writing(connection):
        connection.executemany(
            "UPDATE applied_orders SET seconds = :seconds, record_epsilon = :record_epsilon, "
            "subject_epsilon = :subject_epsilon, finished = 1 WHERE number = :number AND finished = 0",
            answers,
        )
        if doomed:
            connection.execute(f"DELETE FROM doomed_keys WHERE number IN {chosen}", named)  # noqa: S608 (constants)


def _epsilons(
    connection: sqlite3.Connection, number: int, privacy: PrivacyAccount
) -> tuple[float, float] | tuple[None, None]:
    """Return epsilon of a record and of a subject by what had been released when an order was committed.

    What was released later was made without the deleted records.
    """
    query = "SELECT guarantee, finished, last_training, subject_records FROM applied_orders WHERE number = ?"
    guarantee, finished, last_training, size = connection.execute(query, (number,)).fetchone()
    if finished or guarantee != Guarantee.CERTIFIED:
        return None, None
    return privacy.loss(1, last_training).epsilon, privacy.loss(size, last_training).epsilon


def _checkpoint(connection: sqlite3.Connection) -> None:
    """Move the write-ahead log into the database, where deleted content is zeroed, and truncate the log.

    Raises
    ------
    KeyStoreError
        If a reader in another process is in the way for longer than the connection waits.
    """
    (patience,) = connection.execute("PRAGMA busy_timeout").fetchone()
    deadline = time.monotonic() + patience / 1000
    # SQLite waits for readers by itself, and does not for another connection that is emptying the log as well.
    while (busy := connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]) and time.monotonic() < deadline:
        time.sleep(_PAUSE_SECONDS)
    if busy:
        raise KeyStoreError("another process keeps reading the key store, so its log cannot be emptied; try again")
