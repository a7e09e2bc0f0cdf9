"""Making the files of an empty key store, all of them or none."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from fedmunkey.client.key_store.contents import StoreDescription
from fedmunkey.client.key_store.journal import Journal
from fedmunkey.client.key_store.record_ciphers import RecordCiphers, cipher_file_of, make_master_key, master_key_of
from fedmunkey.client.key_store.schema import connect, create_tables, explaining_locks
from fedmunkey.client.key_store.store_secrets import check_noise_key, read_secrets, write_description
from fedmunkey.common.errors import KeyStoreError


def create_files(
    path: Path, description: StoreDescription, noise_key: bytes | None, master_key: Path | bytes | None
) -> None:
    """Make the SQLite file of an empty store, its master key, key file and journal, as `KeyStore.create` says."""
    check_noise_key(noise_key)
    ciphers, journal = cipher_file_of(path), Journal(path)
    in_memory, elsewhere = (master_key, None) if isinstance(master_key, bytes) else (None, master_key)
    master = elsewhere or master_key_of(path)
    for file in (ciphers, journal.path):
        if file.exists() and not path.exists():
            raise KeyStoreError(f"{file} is there already, of another store; choose another folder")
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
            write_description(connection, description, noise_key, elsewhere, key)
            journal.create()
            made += [*journal.files, ciphers]
            RecordCiphers.create(ciphers, key, read_secrets(connection, path, key).reference_hashes.key).close()
    except BaseException as error:
        for file in made:
            file.unlink(missing_ok=True)
        if isinstance(error, sqlite3.Error):
            raise KeyStoreError(f"{path} cannot be made ({error}); check the disk of its folder") from None
        raise
