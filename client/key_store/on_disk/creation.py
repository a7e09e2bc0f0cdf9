"""Making the files of an empty key store, all or none, and what it takes over from an earlier one of the site."""

from __future__ import annotations

import logging
import secrets
import sqlite3
from contextlib import closing
from pathlib import Path

from fedmunkey.client.key_store.on_disk.contents import StoreDescription
from fedmunkey.client.key_store.on_disk.influence import EVERY_PERMANENT, EVERY_RECORD, ONCE_HELD, bury
from fedmunkey.client.key_store.on_disk.journal import Journal, Kept
from fedmunkey.client.key_store.on_disk.lost_journal import known_epoch
from fedmunkey.client.key_store.on_disk.record_ciphers import (
    KEY_BYTES,
    Epoch,
    RecordCiphers,
    cipher_file_of,
    make_master_key,
    master_key_of,
)
from fedmunkey.client.key_store.on_disk.remembering import find_hash_key, sealed_key
from fedmunkey.client.key_store.on_disk.restoration import remember
from fedmunkey.client.key_store.on_disk.schema import connect, create_tables, explaining_locks, writing
from fedmunkey.client.key_store.on_disk.store_secrets import check_noise_key, seal_secrets, write_description
from fedmunkey.client.key_store.on_disk.taking_over import take_over_journal
from fedmunkey.common.errors import KeyStoreError
from fedmunkey.common.privacy.guarantees import Influence

logger = logging.getLogger(__name__)

_SKIPPED = 1 << 16
"""How many numbers of epochs are left out between the key files of two stores."""


def create_files(
    path: Path,
    description: StoreDescription,
    noise_key: bytes | None,
    master_key: Path | bytes | None,
    earlier: Path | None,
) -> None:
    """Make the SQLite file of an empty store, its master key, key file and journal, as `KeyStore.create` says."""
    check_noise_key(noise_key)
    ciphers, journal = cipher_file_of(path), Journal(path)
    in_memory, elsewhere = (master_key, None) if isinstance(master_key, bytes) else (None, master_key)
    master = elsewhere or master_key_of(path)
    if ciphers.exists() and not path.exists():
        raise KeyStoreError(f"{ciphers} is there already, of another store; choose another folder")
    try:
        path.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        raise KeyStoreError(f"{path} is there already; open it, or choose another folder") from None
    except OSError as error:
        raise KeyStoreError(
            f"{path} cannot be made ({error.strerror}); check its folder's permissions and the free space on its disk"
        ) from None
    made = [path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", "-journal"))]
    if in_memory is None and not master.exists():
        made.append(master)
    try:
        with explaining_locks(), closing(connect(path)) as connection:
            create_tables(connection)
            key = in_memory or make_master_key(master)
            if not journal.path.exists():
                journal.create()
                made += journal.files
            knowing = Journal(earlier) if earlier is not None and Journal(earlier).path.exists() else journal
            take_over_journal(knowing, description)
            with closing(knowing), writing(connection):
                found = find_hash_key(knowing, key)
                hash_key = found or secrets.token_bytes(KEY_BYTES)
                write_description(connection, description, elsewhere, seal_secrets(key, hash_key, noise_key))
                _take_over(connection, knowing, hash_key_lost=found is None)
                epoch = _begin_epoch(connection, knowing, same_header=found is not None)
                if found is None:
                    # Last: without it, whoever is interrupted before begins again.
                    knowing.add(Kept.HASH_KEYS, sealed_key(key, hash_key))
            made.append(ciphers)
            RecordCiphers.create(ciphers, key, hash_key, epoch).close()
    except BaseException as error:
        for file in made:
            file.unlink(missing_ok=True)
        if isinstance(error, sqlite3.Error):
            raise KeyStoreError(f"{path} cannot be made ({error}); check the disk of its folder") from None
        raise


def _take_over(connection: sqlite3.Connection, journal: Journal, *, hash_key_lost: bool) -> None:
    """Give an empty store what an earlier store's journal says, within the caller's transaction.

    It has to hear every order again before it is used, if there was one or that cannot be told.
    """
    if hash_key_lost:
        if journal.query("SELECT 1 FROM hash_keys LIMIT 1"):
            logger.warning(
                "%s was written with another master key, so deleted records are known again only after "
                "munkey-client catch-up; if that key is elsewhere, begin again with --master-key",
                journal.path,
            )
        # Which records weights hold cannot be told without it, only of what kind they were.
        every = {0: EVERY_RECORD, 1: EVERY_PERMANENT}
        rows = [(every[permanent], influence, 1) for influence, permanent in journal.read(Kept.INFLUENCES)]
        journal.add(Kept.REMEMBERED, *rows)
    remember(connection, journal, 0)
    for influence, _ in journal.read(Kept.INFLUENCES):
        bury(connection, {ONCE_HELD: Influence(influence)})
    lost = journal.query("SELECT 1 FROM remembered WHERE hash = ?", (EVERY_RECORD,))
    if lost or journal.query("SELECT 1 FROM answers LIMIT 1"):
        bury(connection, {ONCE_HELD: Influence.NONE})
        connection.execute("UPDATE description SET restored = 1")


def _begin_epoch(connection: sqlite3.Connection, journal: Journal, *, same_header: bool) -> Epoch:
    """Return the epoch of an empty store's key file: later than all of the earlier one, of which copies may lie about.

    The store, within the caller's transaction, and the journal come to know it.
    """
    known = known_epoch(connection, journal)
    if not same_header and known == Epoch():
        return known
    # The earlier one may be further than is known, by deletions that were interrupted.
    epoch = Epoch(known.number + _SKIPPED, secrets.token_bytes(8))
    journal.add(Kept.EPOCHS, epoch)
    connection.execute("INSERT INTO key_file_epoch VALUES (1, ?, ?)", epoch)
    return epoch
