"""What is done where the journal is lost: it is written again from the store, or the worst is assumed, aloud."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import numpy as np

from fedmunkey.client.key_store.on_disk.facts import read_facts
from fedmunkey.client.key_store.on_disk.journal import LOST_HEAD, Journal, Kept, Row
from fedmunkey.client.key_store.on_disk.record_ciphers import Epoch, RecordCiphers, cipher_file_of
from fedmunkey.client.key_store.on_disk.remembering import known_hashes, put_aside, worst_of
from fedmunkey.client.key_store.on_disk.store_secrets import StoreSecrets, read_secrets
from fedmunkey.client.key_store.on_disk.taking_over import open_store, take_over_journal
from fedmunkey.common.deletions.words import SiteState
from fedmunkey.common.errors import KeyStoreError

logger = logging.getLogger(__name__)

_WITHOUT = (
    "put it back from its disk's mirror, or restore with --without-journal, which counts the whole privacy budget as "
    "spent and every record as one that weights may hold"
)


def write_again(connection: sqlite3.Connection, journal: Journal, ciphers: RecordCiphers) -> None:
    """Write a missing journal from the store that it lies beside, which knows the same unless it is a backup.

    Receipts and what was seen of the log are lost. Raises `KeyStoreError` if the journal cannot be written.
    """
    # Another process may be as quick.
    with suppress(FileExistsError):
        kept = {**_known(connection), Kept.HEAD: [LOST_HEAD], Kept.INFLUENCES: _influences(connection, ciphers)}
        journal.create(kept)
        logger.warning("the journal %s was missing; it was written again from the key store", journal.path)


def find_journal(backup: sqlite3.Connection, own: StoreSecrets, store: Path) -> Journal:
    """Return the journal beside a store that a backup, with its own secrets, is to replace.

    If it is missing, it is written again from the store, where that can be read. Raises `KeyStoreError` if there is
    none, or it lacks what the backup knows.
    """
    journal = Journal(store)
    take_over_journal(journal, own.description)
    if not journal.path.exists() and store.exists():
        with suppress(sqlite3.DatabaseError), closing(open_store(store)) as live:
            if read_secrets(live, store, own.master).reference_hashes == own.reference_hashes:
                with closing(RecordCiphers(cipher_file_of(store), own.master, own.reference_hashes.key)) as ciphers:
                    write_again(live, journal, ciphers)
    if not journal.path.exists():
        raise KeyStoreError(
            f"the journal {journal.path} is missing, and with it what was spent of the patients' privacy since the "
            f"backup; {_WITHOUT}"
        )
    lost = [(kind.removesuffix("s"), int(row[0])) for kind, rows in _lost(backup, journal).items() for row in rows]
    if lost:
        kind, number = lost[0]
        raise KeyStoreError(
            f"the journal {journal.path} is not whole: the backup knows {len(lost)} lines that it lacks "
            f"({kind} {number} is the first); {_WITHOUT}"
        )
    return journal


def assume_the_worst(backup: sqlite3.Connection, own: StoreSecrets, store: Path) -> Journal:
    """Begin a new journal, or go on with an incomplete one, that claims nothing for the records of a backup.

    One that is damaged is put aside. Raises `KeyStoreError` if the journal is there and whole, so that nothing needs to
    be assumed, or cannot be written.
    """
    journal = Journal(store)
    try:
        find_journal(backup, own, store)
    except KeyStoreError:
        if journal.is_damaged():
            put_aside(journal)
        with suppress(FileExistsError):
            journal.create({Kept.HEAD: [LOST_HEAD]})
        for kind, rows in _lost(backup, journal).items():
            journal.add(kind, *rows)
        journal.add(Kept.EPOCHS, *_known(backup)[Kept.EPOCHS])
    else:
        raise KeyStoreError(f"the journal {journal.path} is whole; leave --without-journal out")
    (last,) = backup.execute("SELECT coalesce(max(id), 0) FROM noisy_training").fetchone()
    last = max([last, *(row[0] for row in journal.read(Kept.TRAININGS))])
    journal.add_all(worst_of(own.description, last))
    return journal


def known_epoch(connection: sqlite3.Connection, journal: Journal) -> Epoch:
    """Return the last epoch of the key file that a store or its journal knows, the store's where that has none."""
    rows = connection.execute("SELECT number, mark FROM key_file_epoch").fetchall()
    # One that cannot be read is named by whatever needs it.
    with suppress(KeyStoreError):
        rows += journal.query("SELECT number, mark FROM key_file_epochs ORDER BY number DESC LIMIT 1")
    return max((Epoch(*row) for row in rows), default=Epoch())


def _lost(backup: sqlite3.Connection, journal: Journal) -> dict[Kept, list[Row]]:
    """Return the rows that a backup knows and a journal lacks: trainings by number, answers by their request.

    Where one of the two has not kept an answer's request, the answer is known by its number as well.
    """
    known, answers = _known(backup), journal.read(Kept.ANSWERS)
    trainings = {row[0] for row in journal.read(Kept.TRAININGS)}
    requests = {request for *_, request in answers}
    numbers = {number for number, *_ in answers}
    unnamed = {number for number, _, request in answers if request is None}
    return {
        Kept.ANSWERS: [
            row
            for row in known[Kept.ANSWERS]
            if row[0] not in (numbers if row[2] is None else unnamed) and (row[2] is None or row[2] not in requests)
        ],
        Kept.TRAININGS: [row for row in known[Kept.TRAININGS] if row[0] not in trainings],
    }


def _known(connection: sqlite3.Connection) -> dict[Kept, list[Row]]:
    """Return the rows of a journal that a store can tell, but for influences."""
    queries = {
        Kept.ANSWERS: "SELECT json_extract(document, '$.order'), document, request FROM applied_orders "  # noqa: S608
        f"WHERE finished = 1 AND json_extract(document, '$.state') <> '{SiteState.REFUSED}' "
        "UNION SELECT number, document, NULL FROM remembered_answers ORDER BY 1",
        Kept.TRAININGS: "SELECT id, round, steps, sampling_rate, noise_multiplier FROM noisy_training "
        "WHERE released = 1 ORDER BY id",
        Kept.EPOCHS: "SELECT number, mark FROM key_file_epoch",
    }
    rows = {kind: connection.execute(query).fetchall() for kind, query in queries.items()}
    return {**rows, Kept.REMEMBERED: known_hashes(connection)}


def _influences(connection: sqlite3.Connection, ciphers: RecordCiphers) -> list[Row]:
    """Return each influence that training records have, and whether all of those are permanent."""
    query = "SELECT entry, influence FROM records WHERE split = 'train' AND influence <> 'none'"
    held = dict(connection.execute(query).fetchall())
    facts = read_facts(connection, ciphers, np.array(sorted(held), dtype=np.int64))
    revocable = {held[entry] for entry in held if entry not in facts or not facts[entry].permanent}
    return [(influence, int(influence not in revocable)) for influence in sorted(set(held.values()))]
