"""Carrying out a deletion order: one transaction, and then no file that holds the bytes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from client.key_store.contents import StoreDescription
from client.key_store.description import Identity
from client.key_store.encryption import unseal
from client.key_store.identities import ReferenceHashes
from client.key_store.influence import bury, count_largest_subject, recall
from client.key_store.journal import ANSWER, ANSWER_COLUMNS, Journal
from client.key_store.key_file import KeyFile
from client.key_store.privacy import PrivacyAccount
from client.key_store.residue import MOST_FINGERPRINTED, Residue, fingerprint, spread
from client.key_store.schema import (
    CONTENTS,
    explaining_locks,
    not_following_references,
    not_waiting_for_disk,
    writing,
)
from common.deletion import Acknowledgement, DeletionOrder, Records, SiteState, Subject, Target, WholeSite
from common.errors import KeyStoreError
from common.failpoints import Failpoint, hit
from common.guarantees import Guarantee, Influence, PrivacyLoss

_PAUSE_SECONDS = 0.01
_SEALED = {
    "keys": Residue.SEALED_KEY,
    "inputs": Residue.SEALED_INPUT,
    "tokens": Residue.SEALED_TOKEN,
    "records": Residue.SEALED_IDENTITY,
}
_CLEAR = {
    "keys": Residue.KEY,
    "inputs": Residue.INPUT,
    "tokens": Residue.TOKEN,
    "records": Residue.IDENTITY,
}


@dataclass(frozen=True)
class Surroundings:
    """What a deletion needs beside the store's tables: its identity, keys, account and journal."""

    identity: Identity
    keys: KeyFile
    privacy: PrivacyAccount
    journal: Journal


def apply_order(connection: sqlite3.Connection, order: DeletionOrder, around: Surroundings) -> Acknowledgement:
    """Delete what an order names, leave tombstones, destroy the records' keys, and empty the write-ahead log.

    Parameters
    ----------
    connection : sqlite3.Connection
        A key store's connection, outside of a transaction.
    order : DeletionOrder
        What is to be deleted.
    around : Surroundings
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
        with writing(connection):
            if not _is_applied(connection, order.number):
                _delete(connection, order, around)
                hit(Failpoint.APPLY_BEFORE_COMMIT)
        hit(Failpoint.APPLY_AFTER_COMMIT)
        _finish(connection, order.number, start, around)
        hit(Failpoint.APPLY_FINISHED)
    return next(read_acknowledgements(connection, around.identity.description, f"number = {order.number}"))


def finish_interrupted(connection: sqlite3.Connection, around: Surroundings) -> None:
    """Finish deletions that were committed and then interrupted; raises as `apply_order` does."""
    unfinished = connection.execute("SELECT number FROM applied_orders WHERE finished = 0").fetchall()
    for (number,) in unfinished:
        with explaining_locks():
            _finish(connection, number, time.perf_counter(), around)


def read_acknowledgements(
    connection: sqlite3.Connection, description: StoreDescription, condition: str
) -> Iterator[Acknowledgement]:
    """Yield the answers to applied orders that meet a condition in SQL, oldest first."""
    columns = (
        "number, request_id, state, records, entries, guarantee, seconds, reason, subject_records, "
        "record_epsilon, subject_epsilon"
    )
    query = f"SELECT {columns} FROM applied_orders WHERE {condition} ORDER BY number"  # noqa: S608 (callers' constants)
    for row in connection.execute(query).fetchall():
        number, request_id, state, records, entries, guarantee, seconds, reason, size, record, subject = row
        yield Acknowledgement(
            number=number,
            site=description.site,
            request_id=request_id,
            state=SiteState(state),
            records=records,
            entries=entries,
            guarantee=Guarantee(guarantee),
            seconds=seconds,
            reason=reason,
            record_loss=None if record is None else PrivacyLoss(record, description.delta),
            subject_loss=None if subject is None else PrivacyLoss(subject, description.delta, size),
        )


def _finish(connection: sqlite3.Connection, number: int, start: float, around: Surroundings) -> None:
    """Destroy keys, empty the log and fix the answer; whoever comes first fixes it, and the others find it so."""
    query = "SELECT records, finished FROM applied_orders WHERE number = ?"
    records, finished = connection.execute(query, (number,)).fetchone()
    doomed = connection.execute("SELECT entry FROM doomed_keys WHERE number = ?", (number,)).fetchall()
    if doomed:
        around.keys.destroy(entry for (entry,) in doomed)
    if records:
        _checkpoint(connection)
    hit(Failpoint.APPLY_AFTER_ERASURE)
    if finished:
        return
    seconds = time.perf_counter() - start
    query = f"SELECT {', '.join(ANSWER_COLUMNS)} FROM applied_orders WHERE number = ?"  # noqa: S608 (constants)
    answer = dict(zip(ANSWER_COLUMNS, connection.execute(query, (number,)).fetchone(), strict=True))
    answer["record_epsilon"], answer["subject_epsilon"] = _epsilons(connection, number, around.privacy)
    answer["seconds"] = seconds
    # Before the answer can be given: if this fails, on a full disk, it is not, and the order stays pending.
    around.journal.add(ANSWER, answer)
    with not_waiting_for_disk(connection):
        connection.execute(
            "UPDATE applied_orders SET seconds = :seconds, record_epsilon = :record_epsilon, "
            "subject_epsilon = :subject_epsilon, finished = 1 WHERE number = :number AND finished = 0",
            answer,
        )
        if doomed:
            connection.execute("DELETE FROM doomed_keys WHERE number = ?", (number,))


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


class _Held(NamedTuple):
    """A record that an order names."""

    entry: int
    record_hash: bytes
    subject_hash: bytes
    split: str
    influence: str
    image_hash: bytes


def _delete(connection: sqlite3.Connection, order: DeletionOrder, around: Surroundings) -> None:
    identity = around.identity
    target, hashes = order.request.target, identity.hashes
    found = _select(connection, target, hashes)
    named = _named(target, hashes)
    answer = _answer(connection, order, found, recall(connection, named), identity.description, around.privacy)
    # A subject's tombstone remembers the most that was held of any of its records.
    influences = [Influence(held.influence) for held in found]
    strongest = max(influences, key=list(Influence).index, default=Influence.NONE)
    buried = dict.fromkeys(named, strongest if isinstance(target, Subject) else Influence.NONE)
    for held in found:
        buried[held.record_hash] = Influence(held.influence)
    bury(connection, buried)
    for held in found:
        bury(connection, {held.image_hash: Influence(held.influence)})
    _remember_bytes(connection, order.number, found, around)
    connection.executemany(
        "INSERT INTO doomed_keys (entry, number) VALUES (?, ?)", [(held.entry, order.number) for held in found]
    )
    if isinstance(target, WholeSite):
        for table in ("neighbours", *CONTENTS, "records"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 (names of tables)
    else:
        numbers = [(held.entry,) for held in found]
        for table in CONTENTS:
            overwrite = f"UPDATE {table} SET content = zeroblob(length(content)) WHERE entry = ?"  # noqa: S608
            connection.executemany(overwrite, numbers)
        connection.executemany("DELETE FROM records WHERE entry = ?", numbers)
    connection.execute(
        "INSERT INTO applied_orders (number, request_id, state, records, entries, guarantee, seconds, reason, "
        "last_training, subject_records) VALUES (?, ?, ?, ?, ?, ?, 0, '', ?, ?)",
        answer,
    )
    _give_remembered_answer(connection, order)
    if _entries(found):
        connection.execute("UPDATE description SET generation = generation + 1")


def _give_remembered_answer(connection: sqlite3.Connection, order: DeletionOrder) -> None:
    """In a restored store, answer an order as it was answered before: the coordinator has that answer."""
    columns = ", ".join(ANSWER_COLUMNS)
    connection.execute(
        f"INSERT OR REPLACE INTO applied_orders ({columns}) "  # noqa: S608 (constants)
        f"SELECT {columns} FROM remembered_answers WHERE number = ? AND request_id = ?",
        (order.number, order.request.request_id),
    )


def _remember_bytes(connection: sqlite3.Connection, number: int, found: Sequence[_Held], around: Surroundings) -> None:
    """Keep the fingerprints of what an order is about to overwrite, of some thousand records if it is of more."""
    packed, windows = fingerprint(around.identity.hashes.key, _contents(connection, found, around.keys))
    connection.execute("INSERT OR REPLACE INTO fingerprints VALUES (?, ?, ?)", (number, packed, windows))


def _contents(connection: sqlite3.Connection, found: Sequence[_Held], keys: KeyFile) -> Iterator[tuple[Residue, bytes]]:
    """Yield the bytes of records, encrypted and in the clear."""
    # Reading all of a large site would keep its deletion waiting for minutes.
    for held in spread(found, MOST_FINGERPRINTED):
        slot = keys.read_slots(np.array([held.entry]))[0]
        yield Residue.WRAPPED_KEY, slot[:-4]
        sealed = dict(
            connection.execute(
                "SELECT 'keys', content FROM keys WHERE entry = :entry "
                "UNION ALL SELECT 'inputs', content FROM inputs WHERE entry = :entry "
                "UNION ALL SELECT 'tokens', content FROM tokens WHERE entry = :entry "
                "UNION ALL SELECT 'records', identity FROM records WHERE entry = :entry",
                {"entry": held.entry},
            )
        )
        yield from ((_SEALED[table], content) for table, content in sealed.items() if any(content))
        if any(slot):
            key = keys.read(np.array([held.entry]))[0]
            yield Residue.RECORD_KEY, key
            for table, content in sealed.items():
                if any(content):
                    yield _CLEAR[table], unseal(key, table, held.entry, content)


def _answer(
    connection: sqlite3.Connection,
    order: DeletionOrder,
    found: Sequence[_Held],
    remembered: set[Influence],
    description: StoreDescription,
    privacy: PrivacyAccount,
) -> tuple[object, ...]:
    """Return what `applied_orders` holds of an order, from what the store says before anything is deleted.

    What an earlier order has deleted may be in the shared weights still, so its tombstones count as well.
    """
    influences = remembered | {Influence(held.influence) for held in found}
    everything = isinstance(order.request.target, WholeSite)
    subjects = None if everything else {held.subject_hash for held in found}
    return (
        order.number,
        order.request.request_id,
        (SiteState.ERASED if found else SiteState.NOTHING_HELD).value,
        len(found),
        _entries(found),
        Guarantee.weakest([description.guarantee, *(influence.guarantee for influence in influences)]).value,
        privacy.last_training,
        max(count_largest_subject(connection, subjects), 1),
    )


def _entries(found: Sequence[_Held]) -> int:
    return sum(held.split == "train" for held in found)


def _named(target: Target, hashes: ReferenceHashes) -> list[bytes]:
    """Return the hashes of what a target names, whether it is here or not."""
    if isinstance(target, Records):
        return [hashes.record(reference) for reference in target.references]
    return [hashes.subject(target.reference)] if isinstance(target, Subject) else []


def _select(connection: sqlite3.Connection, target: Target, hashes: ReferenceHashes) -> list[_Held]:
    """Return every record that a target names."""
    columns = "SELECT entry, record_hash, subject_hash, split, influence, image_hash FROM records"
    if isinstance(target, Records):
        queries = (
            connection.execute(f"{columns} WHERE record_hash = ?", (hashes.record(reference),)).fetchone()
            for reference in sorted(target.references)
        )
        return [_Held(*row) for row in queries if row is not None]
    if isinstance(target, Subject):
        rows = connection.execute(f"{columns} WHERE subject_hash = ?", (hashes.subject(target.reference),))
    else:
        rows = connection.execute(columns)
    return [_Held(*row) for row in rows.fetchall()]


def _is_applied(connection: sqlite3.Connection, number: int) -> bool:
    return connection.execute("SELECT 1 FROM applied_orders WHERE number = ?", (number,)).fetchone() is not None
