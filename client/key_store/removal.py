"""What one deletion order changes in a key store's tables."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fedmunkey.client.key_store.answers import write_answer
from fedmunkey.client.key_store.database import StoreDatabase
from fedmunkey.client.key_store.on_disk.contents import StoreDescription
from fedmunkey.client.key_store.on_disk.encryption import seal, unseal
from fedmunkey.client.key_store.on_disk.influence import (
    ONCE_HELD,
    WHOEVER_WAS_HERE,
    bury,
    count_largest_subject,
    recall_all,
)
from fedmunkey.client.key_store.on_disk.journal import Journal
from fedmunkey.client.key_store.on_disk.schema import CONTENTS
from fedmunkey.client.key_store.privacy import PrivacyAccount
from fedmunkey.client.key_store.residue import MOST_FINGERPRINTED, Residue, fingerprint, spread
from fedmunkey.common.deletions.words import (
    Acknowledgement,
    DeletionOrder,
    Records,
    SiteState,
    Subject,
    Target,
    WholeSite,
)
from fedmunkey.common.privacy.guarantees import Guarantee, Influence, PrivacyLoss

_RESIDUES = {
    "keys": (Residue.KEY, Residue.SEALED_KEY),
    "inputs": (Residue.INPUT, Residue.SEALED_INPUT),
    "tokens": (Residue.TOKEN, Residue.SEALED_TOKEN),
    "kept_tokens": (Residue.TOKEN, Residue.SEALED_TOKEN),
    "ids": (Residue.IDS, Residue.SEALED_IDS),
}
_ALL_CONTENTS = " UNION ALL ".join(
    f"SELECT '{table}', content FROM {table} WHERE entry = :entry"  # noqa: S608 (names of tables)
    for table in CONTENTS
)

_CANNOT_TELL = "its key store is a restored or a new one, and cannot tell what the one before it held"


class Hearing(NamedTuple):
    """What a site makes of an order before it is carried out.

    Attributes
    ----------
    request : bytes
        The digest by which the order's request is known under any number.
    objection : str
        Why the order is not to be carried out; empty if it is.
    earlier : Acknowledgement, optional
        How the site has answered the request before, if a store that is no more has carried it out.
    again : Acknowledgement, optional
        How the site has answered when the same was asked for under the same id, and signed another time: that is its
        answer again, unless there is something to delete.
    genuine : bool
        Whether the request is the one that the digest stands for, and not an altered copy of it.
    """

    request: bytes
    objection: str = ""
    earlier: Acknowledgement | None = None
    again: Acknowledgement | None = None
    genuine: bool = True


class _Held(NamedTuple):
    """A record that an order names."""

    entry: int
    record_hash: bytes
    subject_hash: bytes
    split: str
    influence: str
    image_hash: bytes


def remove(
    database: StoreDatabase,
    privacy: PrivacyAccount,
    order: DeletionOrder,
    named: Sequence[bytes],
    heard: Hearing,
) -> dict[bytes, Influence]:
    """Delete what an order names, leave tombstones and write its answer down, within the caller's transaction.

    `named` is what `ReferenceHashes.of_target` gives for it. Returns the tombstones, which the journal has to know as
    well before the answer is given.
    """
    connection = database.connection
    target, hashes = order.request.target, database.reference_hashes
    found = _select(connection, target, named)
    remembered = recall_all(connection, database.journal, named)
    answer = _answer(connection, order, found, remembered, database.description)
    lacking = _may_lack_records(database)
    if lacking and not found:
        answer = replace(answer, reason=_CANNOT_TELL)
    # A subject's tombstone remembers the most that was held of any of its records.
    influences = [Influence(held.influence) for held in found]
    strongest = max(influences, key=list(Influence).index, default=Influence.NONE)
    buried = dict.fromkeys(named, strongest if isinstance(target, Subject) else Influence.NONE)
    for held in found:
        buried[held.record_hash] = Influence(held.influence)
        # Of records with one image the strongest counts.
        both = (Influence(held.influence), buried.get(held.image_hash, Influence.NONE))
        buried[held.image_hash] = max(both, key=list(Influence).index)
    if isinstance(target, WholeSite) and lacking and not _has_tombstones_of(database.journal, heard.request):
        # Of what an earlier store had to forget, this one cannot bury each record.
        buried[WHOEVER_WAS_HERE] = Influence.NONE
    bury(connection, buried)
    packed, windows = fingerprint(hashes.key, _contents(database, found))
    sealed = seal(database.secrets.cipher, "fingerprints", order.number, packed)
    connection.execute("INSERT OR REPLACE INTO fingerprints VALUES (?, ?, ?)", (order.number, sealed, windows))
    connection.executemany(
        "INSERT INTO doomed_record_keys (entry, number) VALUES (?, ?)", [(held.entry, order.number) for held in found]
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
    earlier = heard.earlier or _remembered(connection, order) or _again(heard.again, answer)
    if earlier is not None:
        answer = replace(earlier, number=order.number)
    write_answer(connection, answer, heard.request, None if earlier else privacy.last_training)
    if _entries(found):
        connection.execute("UPDATE description SET generation = generation + 1")
    return buried


def _may_lack_records(database: StoreDatabase) -> bool:
    """Return whether the site may have held what this store does not, yet: it is restored, or made anew and empty."""
    query = (
        "SELECT (SELECT restored FROM description) OR (EXISTS (SELECT 1 FROM tombstones WHERE hash = ?) "
        "AND NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'records'))"
    )
    return bool(database.connection.execute(query, (ONCE_HELD,)).fetchone()[0])


def _has_tombstones_of(journal: Journal, request: bytes) -> bool:
    """Return whether a journal has what a request was carried out on, by the hashes that the store uses."""
    ((keys,),) = journal.query("SELECT count(*) FROM hash_keys")
    return keys == 1 and journal.find_answer(request) is not None


def holds_any(connection: sqlite3.Connection, target: Target, named: Sequence[bytes]) -> bool:
    """Return whether there is a record that a target names, by `ReferenceHashes.of_target`."""
    if isinstance(target, WholeSite):
        return connection.execute("SELECT 1 FROM records LIMIT 1").fetchone() is not None
    column = "record_hash" if isinstance(target, Records) else "subject_hash"
    query = f"SELECT 1 FROM records WHERE {column} = ? LIMIT 1"  # noqa: S608 (names of columns)
    return any(connection.execute(query, (hash_,)).fetchone() for hash_ in named)


def _again(before: Acknowledgement | None, answer: Acknowledgement) -> Acknowledgement | None:
    """Return what a site that holds nothing has answered before to the same, if it claims no more than the answer."""
    if before is None or answer.state is not SiteState.NOTHING_HELD or before.state is not SiteState.ERASED:
        return None
    return before if Guarantee.weakest([before.guarantee, answer.guarantee]) is before.guarantee else None


def _remembered(connection: sqlite3.Connection, order: DeletionOrder) -> Acknowledgement | None:
    """Return how an order was answered before, in a restored store: the coordinator has that answer."""
    query = "SELECT document FROM remembered_answers WHERE number = ?"
    for (document,) in connection.execute(query, (order.number,)):
        answer = Acknowledgement.from_json(document)
        if answer.request_id == order.request.request_id:
            return answer
    return None


def _contents(database: StoreDatabase, found: Sequence[_Held]) -> Iterator[tuple[Residue, bytes]]:
    """Yield the bytes of records, encrypted and in the clear, of some thousand of them if there are more."""
    # Reading all of a large site would keep its deletion waiting for minutes.
    for held in spread(found, MOST_FINGERPRINTED):
        slot = database.ciphers.read_slots(np.array([held.entry]))[0]
        yield Residue.WRAPPED_KEY, slot[:-4]
        rows = database.connection.execute(_ALL_CONTENTS, {"entry": held.entry}).fetchall()
        sealed = {table: content for table, content in rows if any(content)}
        yield from ((_RESIDUES[table][1], content) for table, content in sealed.items())
        if any(slot):
            key = database.ciphers.read(np.array([held.entry]))[0]
            yield Residue.RECORD_KEY, key
            for table, content in sealed.items():
                yield _RESIDUES[table][0], unseal(key, table, held.entry, content)


def _answer(
    connection: sqlite3.Connection,
    order: DeletionOrder,
    found: Sequence[_Held],
    remembered: set[Influence],
    description: StoreDescription,
) -> Acknowledgement:
    """Return the answer to an order, from what the store says before anything is deleted.

    Where it is certified, nothing bounds yet what remains: that takes too long within the transaction. What an earlier
    order has deleted may be in the shared weights still, so its tombstones count as well.
    """
    influences = remembered | {Influence(held.influence) for held in found}
    everything = isinstance(order.request.target, WholeSite)
    subjects = None if everything else {held.subject_hash for held in found}
    guarantee = Guarantee.weakest([description.guarantee, *(influence.guarantee for influence in influences)])
    certified = guarantee is Guarantee.CERTIFIED
    size = max(count_largest_subject(connection, subjects), 1) if certified else 1
    return Acknowledgement(
        number=order.number,
        site=order.site,
        request_id=order.request.request_id,
        state=SiteState.ERASED if found else SiteState.NOTHING_HELD,
        records=len(found),
        entries=_entries(found),
        guarantee=guarantee,
        seconds=0.0,
        record_loss=PrivacyLoss(math.inf, description.delta) if certified else None,
        subject_loss=PrivacyLoss(math.inf, description.delta, size) if certified else None,
    )


def _entries(found: Sequence[_Held]) -> int:
    return sum(held.split == "train" for held in found)


def _select(connection: sqlite3.Connection, target: Target, named: Sequence[bytes]) -> list[_Held]:
    """Return every record that a target names, by `ReferenceHashes.of_target`."""
    columns = "SELECT entry, record_hash, subject_hash, split, influence, image_hash FROM records"
    if isinstance(target, Records):
        queries = (connection.execute(f"{columns} WHERE record_hash = ?", (hash_,)).fetchone() for hash_ in named)
        return [_Held(*row) for row in queries if row is not None]
    if isinstance(target, Subject):
        rows = connection.execute(f"{columns} WHERE subject_hash = ?", tuple(named))
    else:
        rows = connection.execute(columns)
    return [_Held(*row) for row in rows.fetchall()]
