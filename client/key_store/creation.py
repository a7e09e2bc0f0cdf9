"""Making the files of an empty key store, all of them or none."""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import closing
from pathlib import Path

from fedmunkey.client.key_store.contents import StoreDescription
from fedmunkey.client.key_store.earlier_store import take_over
from fedmunkey.client.key_store.journal import Journal, Kept
from fedmunkey.client.key_store.record_ciphers import (
    KEY_BYTES,
    RecordCiphers,
    cipher_file_of,
    make_master_key,
    master_key_of,
)
from fedmunkey.client.key_store.remembering import find_hash_key, sealed_key
from fedmunkey.client.key_store.schema import connect, create_tables, explaining_locks, writing
from fedmunkey.client.key_store.store_secrets import check_noise_key, write_description
from fedmunkey.client.key_store.taking_over import take_over_journal
from fedmunkey.common.errors import KeyStoreError


def create_files(
    path: Path, description: StoreDescription, noise_key: bytes | None, master_key: Path | None, earlier: Path | None
) -> None:
    """Make the SQLite file of an empty store, its master key, key file and journal, as `KeyStore.create` says."""
    check_noise_key(noise_key)
    ciphers, journal, master = cipher_file_of(path), Journal(path), master_key or master_key_of(path)
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
    if not master.exists():
        made.append(master)
    try:
        with explaining_locks(), closing(connect(path)) as connection:
            create_tables(connection)
            key = make_master_key(master)
            if not journal.path.exists():
                journal.create()
                made += journal.files
            knowing = Journal(earlier) if earlier is not None and Journal(earlier).path.exists() else journal
            take_over_journal(knowing, description)
            with closing(knowing), writing(connection):
                found = find_hash_key(knowing, key)
                hash_key = found or secrets.token_bytes(KEY_BYTES)
                write_description(connection, description, noise_key, master_key, hash_key)
                take_over(connection, knowing, hash_key_lost=found is None)
                if found is None:
                    # Last: without it, whoever is interrupted before begins again.
                    knowing.add(Kept.HASH_KEYS, sealed_key(key, hash_key))
            made.append(ciphers)
            RecordCiphers.create(ciphers, key, hash_key).close()
    except BaseException as error:
        for file in made:
            file.unlink(missing_ok=True)
        if isinstance(error, sqlite3.Error):
            raise KeyStoreError(f"{path} cannot be made ({error}); check the disk of its folder") from None
        raise
