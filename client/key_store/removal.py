"""What one deletion order changes in a key store's tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from client.key_store.contents import StoreDescription
from client.key_store.database import StoreDatabase
from client.key_store.encryption import unseal
from client.key_store.influence import bury, count_largest_subject, recall
from client.key_store.journal import ANSWER_COLUMNS
from client.key_store.privacy import PrivacyAccount
from client.key_store.reference_hashes import ReferenceHashes
from client.key_store.residue import MOST_FINGERPRINTED, Residue, fingerprint, spread
from client.key_store.schema import CONTENTS
from common.deletion import DeletionOrder, Records, SiteState, Subject, Target, WholeSite
from common.guarantees import Guarantee, Influence

_SEALED = {
    "keys": Residue.SEALED_KEY,
    "inputs": Residue.SEALED_INPUT,
    "tokens": Residue.SEALED_TOKEN,
    "identities": Residue.SEALED_IDENTITY,
}
_CLEAR = {
    "keys": Residue.KEY,
    "inputs": Residue.INPUT,
    "tokens": Residue.TOKEN,
    "identities": Residue.IDENTITY,
}


class _Held(NamedTuple):
    """A record that an order names."""

    entry: int
    record_hash: bytes
    subject_hash: bytes
    split: str
    influence: str
    image_hash: bytes


def remove(database: StoreDatabase, privacy: PrivacyAccount, order: DeletionOrder) -> None:
    """Delete what an order names, leave tombstones and write its answer down, within the caller's transaction."""
    connection = database.connection
    target, hashes = order.request.target, database.reference_hashes
    found = _select(connection, target, hashes)
    named = _named(target, hashes)
    answer = _answer(connection, order, found, recall(connection, named), database.description, privacy)
    # A subject's tombstone remembers the most that was held of any of its records.
    influences = [Influence(held.influence) for held in found]
    strongest = max(influences, key=list(Influence).index, default=Influence.NONE)
    buried = dict.fromkeys(named, strongest if isinstance(target, Subject) else Influence.NONE)
    for held in found:
        buried[held.record_hash] = Influence(held.influence)
    bury(connection, buried)
    for held in found:
        bury(connection, {held.image_hash: Influence(held.influence)})
    _remember_bytes(database, order.number, found)
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


def _remember_bytes(database: StoreDatabase, number: int, found: Sequence[_Held]) -> None:
    """Keep the fingerprints of what an order is about to overwrite, of some thousand records if it is of more."""
    packed, windows = fingerprint(database.reference_hashes.key, _contents(database, found))
    database.connection.execute("INSERT OR REPLACE INTO fingerprints VALUES (?, ?, ?)", (number, packed, windows))


def _contents(database: StoreDatabase, found: Sequence[_Held]) -> Iterator[tuple[Residue, bytes]]:
    """Yield the bytes of records, encrypted and in the clear."""
    # Reading all of a large site would keep its deletion waiting for minutes.
    for held in spread(found, MOST_FINGERPRINTED):
        slot = database.ciphers.read_slots(np.array([held.entry]))[0]
        yield Residue.WRAPPED_KEY, slot[:-4]
        sealed = dict(
            database.connection.execute(
                "SELECT 'keys', content FROM keys WHERE entry = :entry "
                "UNION ALL SELECT 'inputs', content FROM inputs WHERE entry = :entry "
                "UNION ALL SELECT 'tokens', content FROM tokens WHERE entry = :entry "
                "UNION ALL SELECT 'identities', content FROM identities WHERE entry = :entry",
                {"entry": held.entry},
            )
        )
        yield from ((_SEALED[table], content) for table, content in sealed.items() if any(content))
        if any(slot):
            key = database.ciphers.read(np.array([held.entry]))[0]
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
