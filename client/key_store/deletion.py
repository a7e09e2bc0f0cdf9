"""Carrying out deletion orders: one transaction, and then no file that holds the bytes."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

from fedmunkey.client.key_store.answers import is_answered, read_answers, repeat_answer, write_refusal
from fedmunkey.client.key_store.database import StoreDatabase
from fedmunkey.client.key_store.enrolment import Arrivals
from fedmunkey.client.key_store.on_disk.journal import Kept, Row
from fedmunkey.client.key_store.on_disk.reference_hashes import commitment_to
from fedmunkey.client.key_store.on_disk.remembering import known_tombstones
from fedmunkey.client.key_store.on_disk.schema import (
    explaining_locks,
    not_following_references,
    not_waiting_for_disk,
    writing,
)
from fedmunkey.client.key_store.privacy import PrivacyAccount
from fedmunkey.client.key_store.removal import Hearing, holds_any, remove
from fedmunkey.client.key_store.staging import Staging
from fedmunkey.common.deletions.words import Acknowledgement, DeletionOrder, Records, WholeSite
from fedmunkey.common.errors import KeyStoreError
from fedmunkey.common.failpoints import Failpoint, hit

Hear = Callable[[DeletionOrder], Hearing]

_PAUSE_SECONDS = 0.01


def apply_orders(
    database: StoreDatabase, privacy: PrivacyAccount, orders: Sequence[DeletionOrder], hear: Hear
) -> list[Acknowledgement]:
    """Delete what orders name, leave tombstones, destroy the records' keys, and empty the write-ahead log.

    All of them are one transaction and wait for the disk together; one for a whole site is a transaction of its own.
    Returns an answer for each order: the one that was stored, if it had been answered before. Raises `KeyStoreError` if
    another process keeps the store from being written or the log from being emptied.
    """
    answers: list[Acknowledgement] = []
    for together in _transactions(orders):
        answers += _apply_together(database, privacy, together, hear)
    return answers


def finish_interrupted(database: StoreDatabase, privacy: PrivacyAccount) -> None:
    """Finish deletions that were committed and then interrupted; raises as `apply_orders` does."""
    unfinished = database.connection.execute("SELECT number FROM applied_orders WHERE finished = 0").fetchall()
    if unfinished:
        with explaining_locks():
            told: dict[Kept, list[Row]] = {Kept.REMEMBERED: known_tombstones(database.connection)}
            _finish(database, privacy, [number for (number,) in unfinished], time.perf_counter(), told)


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
    database: StoreDatabase, privacy: PrivacyAccount, orders: Sequence[DeletionOrder], hear: Hear
) -> list[Acknowledgement]:
    connection, start = database.connection, time.perf_counter()
    staging = Staging(database, database.journal.path.parent)
    refused: set[int] = set()
    told: dict[Kept, list[Row]] = {Kept.REMEMBERED: [], Kept.TARGETS: []}
    everything = isinstance(orders[0].request.target, WholeSite)
    # What brings a deletion to the disk is that the log is emptied, before keys are destroyed and an answer is given.
    named = {order.number: database.reference_hashes.of_target(order.request.target) for order in orders}
    held = any(holds_any(connection, order.request.target, named[order.number]) for order in orders)
    with explaining_locks(), not_following_references(connection) if everything else nullcontext():
        with not_waiting_for_disk(connection) if held else nullcontext(), writing(connection):
            for order in orders:
                if is_answered(connection, order.number):
                    continue
                heard = hear(order)
                if heard.genuine and repeat_answer(connection, order, heard.request):
                    continue
                if heard.objection:
                    write_refusal(connection, order, heard.request, heard.objection)
                    refused.add(order.number)
                    continue
                waiting = staging.held_of(order.request.request_id, connection) if heard.genuine else None
                buried = remove(database, privacy, order, named[order.number], heard)
                if waiting is not None:
                    _put_in_place(staging, waiting, order)
                told[Kept.REMEMBERED] += [(hash_, influence.value, 1) for hash_, influence in buried.items()]
                commitment = commitment_to(named[order.number])
                told[Kept.TARGETS].append((order.request.request_id, commitment, heard.request))
                hit(Failpoint.APPLY_BEFORE_COMMIT)
        staging.sweep(connection, [order.request.request_id for order in orders])
        applied = [order.number for order in orders if order.number not in refused]
        _hit_each(Failpoint.APPLY_AFTER_COMMIT, applied)
        if applied:
            _finish(database, privacy, applied, start, told, on_disk=not held)
        elif held:
            _checkpoint(connection)
        _hit_each(Failpoint.APPLY_FINISHED, applied)
    numbers = json.dumps([order.number for order in orders])
    return read_answers(connection, "number IN (SELECT value FROM json_each(?))", numbers)


def _put_in_place(staging: Staging, waiting: Arrivals, order: DeletionOrder) -> None:
    """Enrol corrected records in the place of what an order has erased, and note how many for its receipt."""
    target = order.request.target
    if isinstance(target, Records) and target.references >= set(waiting.references):
        added = staging.put_in_place(waiting)
        staging.database.connection.execute("INSERT OR REPLACE INTO rectified VALUES (?, ?)", (order.number, added))


def _hit_each(point: Failpoint, numbers: Sequence[int]) -> None:
    """Come by a failpoint once for each order, so that a plan means the same whether orders share a transaction."""
    for _ in numbers:
        hit(point)


def _finish(
    database: StoreDatabase,
    privacy: PrivacyAccount,
    numbers: Sequence[int],
    start: float,
    told: Mapping[Kept, Sequence[Row]],
    *,
    on_disk: bool = True,
) -> None:
    """Empty the log, destroy keys and fix the answers; whoever comes first fixes them, and the others find them so.

    `told` is what the journal has to know besides the answers before these are given, `on_disk` whether the transaction
    that is to be finished has waited for the disk.
    """
    connection = database.connection
    chosen = "(SELECT value FROM json_each(:numbers))"
    named = {"numbers": json.dumps(list(numbers))}
    rows = connection.execute(
        f"SELECT document, last_training, finished, request FROM applied_orders WHERE number IN {chosen}",  # noqa: S608 (constants)
        named,
    ).fetchall()
    answers = [Acknowledgement.from_json(document) for document, *_ in rows]
    doomed = connection.execute(f"SELECT entry FROM doomed_record_keys WHERE number IN {chosen}", named).fetchall()  # noqa: S608
    epochs: list[Row] = []
    if doomed or not on_disk or any(answer.records for answer in answers):
        epochs = _erase(database, [entry for (entry,) in doomed])
    _hit_each(Failpoint.APPLY_AFTER_ERASURE, numbers)
    seconds = time.perf_counter() - start
    final = [
        (answer.number, _final(answer, last_training, seconds, privacy).to_json(), request)
        for answer, (_, last_training, finished, request) in zip(answers, rows, strict=True)
        if not finished
    ]
    if not final:
        return
    # Before the answers can be given: if this fails, on a full disk, they are not, and the orders stay pending.
    database.journal.add_all({Kept.ANSWERS: final, Kept.EPOCHS: epochs, **told})
    with not_waiting_for_disk(connection), writing(connection):
        connection.executemany("INSERT OR REPLACE INTO key_file_epoch VALUES (1, ?, ?)", epochs)
        connection.executemany(
            "UPDATE applied_orders SET document = ?2, finished = 1 WHERE number = ?1 AND finished = 0",
            [row[:2] for row in final],
        )
        if doomed:
            connection.execute(f"DELETE FROM doomed_record_keys WHERE number IN {chosen}", named)  # noqa: S608 (constants)


def _erase(database: StoreDatabase, doomed: Sequence[int]) -> list[Row]:
    """Empty the log, which brings the deletion to the disk, then destroy keys: what comes back has its own.

    Returns the epoch that the key file has, if keys were destroyed. Raises `KeyStoreError` as `_checkpoint`.
    """
    try:
        _checkpoint(database.connection)
    except KeyStoreError:
        # Keys do not wait for whoever is reading, but for the commit.
        with database.writing() as connection:
            connection.execute("UPDATE description SET generation = generation")
        database.ciphers.destroy(doomed)
        raise
    return [database.ciphers.destroy(doomed)] if doomed else []


def _final(
    answer: Acknowledgement, last_training: int | None, seconds: float, privacy: PrivacyAccount
) -> Acknowledgement:
    """Return an answer as it is given; one that was given before stays.

    What remains of a record and of a subject is bounded by what had been released when the order was committed: what
    was released later was made without the deleted records.
    """
    if last_training is None:
        return answer
    if answer.subject_loss is None:
        return replace(answer, seconds=seconds)
    return replace(
        answer,
        seconds=seconds,
        record_loss=privacy.loss(1, last_training),
        subject_loss=privacy.loss(answer.subject_loss.records, last_training),
    )


def _checkpoint(connection: sqlite3.Connection) -> None:
    """Move the write-ahead log into the database, where deleted content is zeroed, and truncate the log.

    Raises `KeyStoreError` if a reader in another process is in the way for longer than the connection waits.
    """
    (patience,) = connection.execute("PRAGMA busy_timeout").fetchone()
    deadline = time.monotonic() + patience / 1000
    # SQLite waits for readers by itself, and does not for another connection that is emptying the log as well.
    while (busy := connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]) and time.monotonic() < deadline:
        time.sleep(_PAUSE_SECONDS)
    if busy:
        raise KeyStoreError("another process keeps reading the key store, so its log cannot be emptied; try again")
