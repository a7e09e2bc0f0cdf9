"""Backups of a key store, and what a restored one must take over before anything in it may be used.

A backup holds contents that are encrypted under keys that it does not hold: those stay in the key file, where a
deletion destroys them. Whoever has a backup and the site's present key file and master key can read what the site may
still hold, and nothing that it has deleted since.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedmunkey.client.key_store.on_disk.facts import read_facts, unseal_ids
from fedmunkey.client.key_store.on_disk.influence import bury, raise_influence_everywhere
from fedmunkey.client.key_store.on_disk.journal import Journal, Kept, Row
from fedmunkey.client.key_store.on_disk.lost_journal import assume_the_worst, find_journal, known_epoch
from fedmunkey.client.key_store.on_disk.record_ciphers import (
    RecordCiphers,
    cipher_file_of,
    master_key_of,
    read_backup_key,
    read_master_key,
)
from fedmunkey.client.key_store.on_disk.schema import (
    CONTENTS,
    check_version,
    connect,
    create_indexes,
    explaining_locks,
    read_version,
    writing,
)
from fedmunkey.client.key_store.on_disk.sealed_backup import (
    BackupHeader,
    is_sealed,
    read_header,
    seal_backup,
    unseal_backup,
)
from fedmunkey.client.key_store.on_disk.store_secrets import find_master_key, read_secrets
from fedmunkey.client.key_store.on_disk.taking_over import bring_up_to_date
from fedmunkey.common.errors import KeyStoreError
from fedmunkey.common.privacy.guarantees import Influence


@dataclass(frozen=True)
class Restored:
    """Records in the backup, those of them whose keys were destroyed since, and the last order that it knew."""

    records: int
    unreadable: int
    last_order: int


def back_up(connection: sqlite3.Connection, ciphers: RecordCiphers, output: Path, aside: Path) -> int:
    """Copy a store that is in use into a sealed file that only its owner can read, and return its size in bytes.

    `aside` is a folder of the site, where the copy lies until it is sealed. Raises `KeyStoreError` if the output is
    there already, or a disk is full; no file is left then.
    """
    copied = aside / "copy"
    try:
        opened = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise KeyStoreError(f"{output} is there already; name another file") from None
    try:
        with os.fdopen(opened, "wb") as file, explaining_locks():
            (master_key,) = connection.execute("SELECT master_key FROM description").fetchone()
            with writing(connection):
                slot = _reserve_entry(connection, ciphers.slots + 1)
                key = ciphers.add_backup(slot)
            copied.touch(0o600)
            with closing(sqlite3.connect(copied)) as copy:
                connection.backup(copy)
                # One file, without a log beside it.
                copy.execute("PRAGMA journal_mode = DELETE")
            seal_backup(copied, file, key, BackupHeader(slot, master_key))
    except BaseException:
        output.unlink(missing_ok=True)
        raise
    return output.stat().st_size


def _reserve_entry(connection: sqlite3.Connection, least: int) -> int:
    """Return an entry number that no record gets, within the caller's transaction."""
    _use_up_entries(connection, least - 1)
    connection.execute("UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'records'")
    return int(connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'records'").fetchone()[0])


def _use_up_entries(connection: sqlite3.Connection, last: int) -> None:
    """Let no record get an entry number up to one, within the caller's transaction."""
    connection.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'records'", (last,))
    if not connection.execute("SELECT 1 FROM sqlite_sequence WHERE name = 'records'").fetchone():
        connection.execute("INSERT INTO sqlite_sequence VALUES ('records', ?)", (last,))


def restore(backup: Path, store: Path, *, without_journal: bool = False) -> Restored:
    """Put a backup in the place of a site's key store, unusable until it has caught up with deletions.

    The key file and master key must lie beside that place; the store itself may be damaged or missing. Without its
    journal nothing is claimed for the records any more. Raises `KeyStoreError` if the backup is damaged, of another
    version or of another store, or another of the files is missing.
    """
    if not backup.is_file():
        raise KeyStoreError(f"there is no backup {backup}; name a file that munkey-client backup has written")
    prepared = store.with_suffix(".restoring")
    prepared.unlink(missing_ok=True)
    prepared.touch(mode=0o600)
    try:
        try:
            _take_out(backup, prepared, store)
            with closing(connect(prepared)) as connection:
                connection.execute("PRAGMA journal_mode = DELETE")
                check_version(connection, backup)
                _check_whole(connection, backup)
                bring_up_to_date(connection, store)
                create_indexes(connection)
                restored = _prepare(connection, backup, store, without_journal)
        except sqlite3.DatabaseError as error:
            raise KeyStoreError(f"{backup} is not a readable backup ({error}); take another one") from None
        _replace(prepared, store)
    finally:
        for name in (prepared, prepared.with_name(prepared.name + "-journal")):
            name.unlink(missing_ok=True)
    return restored


def finish_restoring(connection: sqlite3.Connection, ciphers: RecordCiphers, journal: Journal) -> int:
    """Drop records without keys and keys without records, and let the store be used; return the records dropped."""
    with writing(connection):
        rows = connection.execute("SELECT entry, record_hash, image_hash, influence FROM records").fetchall()
        held = set(ciphers.held().tolist())
        dropped = [row for row in rows if row[0] not in held]
        buried: list[Row] = []
        for entry, record_hash, image_hash, influence in dropped:
            for table in CONTENTS:
                overwrite = f"UPDATE {table} SET content = zeroblob(length(content)) WHERE entry = ?"  # noqa: S608
                connection.execute(overwrite, (entry,))
            connection.execute("DELETE FROM records WHERE entry = ?", (entry,))
            bury(connection, {record_hash: Influence(influence)})
            bury(connection, {image_hash: Influence(influence)})
            buried += [(hash_, influence, 1) for hash_ in (record_hash, image_hash)]
        if buried:
            journal.add(Kept.REMEMBERED, *buried)
        if unknown := held - {row[0] for row in rows}:
            epoch = ciphers.destroy(unknown)
            journal.add(Kept.EPOCHS, epoch)
            connection.execute("INSERT OR REPLACE INTO key_file_epoch VALUES (1, ?, ?)", epoch)
        connection.execute("DELETE FROM remembered_answers")
        connection.execute("UPDATE description SET restored = 0, generation = generation + 1")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return len(dropped)


def _take_out(backup: Path, prepared: Path, store: Path) -> None:
    """Write the key store that a backup is, sealed or as versions before have made it, into a file that is there."""
    if not is_sealed(backup):
        with (
            closing(sqlite3.connect(f"file:{backup}?mode=ro", uri=True)) as saved,
            closing(sqlite3.connect(prepared)) as copy,
        ):
            if read_version(saved) == 0:
                raise KeyStoreError(f"{backup} is not a readable backup (it is no key store); take another one")
            check_version(saved, backup)
            saved.backup(copy)
        return
    header, keys = read_header(backup), cipher_file_of(store)
    master = read_master_key(Path(header.master_key) if header.master_key else master_key_of(store))
    try:
        key = read_backup_key(keys, master, header.slot)
    except OSError as error:
        raise KeyStoreError(
            f"the key file {keys} cannot be read ({error.strerror}), and without it no backup can; put it back"
        ) from None
    if key is None:
        raise KeyStoreError(
            f"{keys} does not have the key of {backup}: it is a copy from before the backup, or of another key store "
            "or master key; put the site's own key file and master key in their places, and destroy the copy"
        )
    unseal_backup(backup, prepared, key)


def _check_whole(connection: sqlite3.Connection, backup: Path) -> None:
    (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if state != "ok":
        raise KeyStoreError(f"{backup} is damaged ({state}); take another one")


def _prepare(connection: sqlite3.Connection, backup: Path, store: Path, without_journal: bool) -> Restored:
    """Take over into a copy of the backup what the site must not forget."""
    own = read_secrets(connection, backup, read_master_key(find_master_key(connection, store)))
    entries = {entry for (entry,) in connection.execute("SELECT entry FROM records")}
    (last_order,) = connection.execute("SELECT max(0, coalesce(max(number), 0)) FROM applied_orders").fetchone()
    find = assume_the_worst if without_journal else find_journal
    with ExitStack() as opened:
        ciphers = opened.enter_context(
            closing(RecordCiphers(cipher_file_of(store), own.master, own.reference_hashes.key))
        )
        held, slots = set(ciphers.held().tolist()), ciphers.slots
        for entry in sorted(entries & held)[:1]:
            _check_keys(connection, ciphers, entry, backup)
        journal = opened.enter_context(closing(find(connection, own, store)))
        ciphers.check_epoch(known_epoch(connection, journal))
        opened.enter_context(writing(connection))
        # Training under way in the replaced store must not take this one's generation for its own.
        jump = 1 + secrets.randbits(40)
        connection.execute("UPDATE description SET restored = 1, generation = generation + ?", (jump,))
        # A number that the site gave to a record after the backup is never given to another one.
        _use_up_entries(connection, slots)
        remember(connection, journal, last_order)
        # Of a record whose key is gone nobody knows the consent: the worst is claimed.
        facts = read_facts(connection, ciphers, np.array(sorted(entries), dtype=np.int64))
        revocable = [entry for entry, found in facts.items() if not found.permanent]
        for influence, permanent_only in journal.read(Kept.INFLUENCES):
            raise_influence_everywhere(connection, Influence(influence), but=revocable if permanent_only else ())
    return Restored(len(entries), len(entries - held), last_order)


def _check_keys(connection: sqlite3.Connection, ciphers: RecordCiphers, entry: int, backup: Path) -> None:
    """Check by one of the records that the key file has the backup's record keys, and not those of a later store."""
    (sealed,) = connection.execute("SELECT content FROM ids WHERE entry = ?", (entry,)).fetchone()
    try:
        unseal_ids(ciphers.read(np.array([entry]))[0], entry, sealed)
    except KeyStoreError:
        raise KeyStoreError(
            f"{backup} was taken of an earlier key store, whose record keys {ciphers.path} does not have; take a later "
            "backup, or enrol the records again"
        ) from None


def remember(connection: sqlite3.Connection, journal: Journal, last_order: int) -> None:
    """Take over a journal's answers to orders after one, its released training and tombstones, within a transaction."""
    _remember_answers(connection, journal, last_order)
    _remember_training(connection, journal)
    # What a backup holds came in after its tombstone, or is deleted again by the orders that follow.
    held = {hash_ for row in connection.execute("SELECT record_hash, image_hash FROM records") for hash_ in row}
    for hash_, influence in journal.query("SELECT hash, influence FROM remembered WHERE deleted = 1"):
        if hash_ not in held:
            bury(connection, {hash_: Influence(influence)})


def _remember_answers(connection: sqlite3.Connection, journal: Journal, last_order: int) -> None:
    connection.execute("DELETE FROM remembered_answers")
    answers = [row[:2] for row in journal.read(Kept.ANSWERS) if row[0] > last_order]
    connection.executemany("INSERT OR IGNORE INTO remembered_answers VALUES (?, ?)", answers)


def _remember_training(connection: sqlite3.Connection, journal: Journal) -> None:
    """Count as spent what the journal says was released, whatever the backup knew of it."""
    connection.execute("DELETE FROM noisy_training")
    insert = (
        "INSERT INTO noisy_training (id, round, steps, sampling_rate, noise_multiplier, released) "
        "VALUES (?, ?, ?, ?, ?, 1)"
    )
    connection.executemany(insert, journal.read(Kept.TRAININGS))
    # They were there before, so that no other training is ever given their number.
    connection.executemany("DELETE FROM noisy_training WHERE id = ?", journal.read(Kept.TAKEN_BACK))
    connection.execute("DELETE FROM privacy_losses")


def _replace(prepared: Path, store: Path) -> None:
    """Write a prepared store over the present one, as one transaction where that can be opened at all."""
    if store.exists():
        try:
            with closing(connect(store)) as live, closing(sqlite3.connect(prepared)) as source:
                live.execute("SELECT count(*) FROM sqlite_master").fetchone()
                source.backup(live)
                live.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                return
        except sqlite3.OperationalError as error:
            raise KeyStoreError(
                f"the key store is in use ({error}); stop the agent and training, then restore again"
            ) from None
        except sqlite3.DatabaseError:
            # It is damaged: nobody can be using it.
            for suffix in ("", "-wal", "-shm"):
                store.with_name(store.name + suffix).unlink(missing_ok=True)
    prepared.replace(store)
