"""A key store that is open: its connection, its keys, and what has to hold before anything in it is used."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from fedmunkey.client.key_store.contents import StoreDescription
from fedmunkey.client.key_store.creation import create_files
from fedmunkey.client.key_store.description import Identity, read_identity
from fedmunkey.client.key_store.identities import ReferenceHashes
from fedmunkey.client.key_store.journal import Journal
from fedmunkey.client.key_store.key_file import KeyFile, key_file_of, master_key_of, read_master_key
from fedmunkey.client.key_store.lost_journal import write_again
from fedmunkey.client.key_store.privacy import PrivacyAccount
from fedmunkey.client.key_store.removal import Surroundings
from fedmunkey.client.key_store.schema import cannot_be_used, check_version, connect, create_indexes, writing
from fedmunkey.common.errors import BankChanged, KeyStoreError


class OpenedStore:
    """One open key store; `create` and `open` make it, and it is a context manager.

    Parameters
    ----------
    path : Path
        The SQLite file.
    connection : sqlite3.Connection
        A connection that `client.key_store.schema.connect` made.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._identity: Identity = read_identity(connection, path)
        self.journal = Journal.of(path)
        if not self.journal.path.exists():
            write_again(connection, self.journal)
        self.keys = KeyFile(key_file_of(path), read_master_key(self.master_key), self.hashes.key)
        self._privacy = PrivacyAccount(connection, self.description, self.journal)
        self._noted: list[dict[str, str | int | float | None]] = []
        self._around = Surroundings(self._identity, self.keys, self._privacy, self.journal)

    @classmethod
    def create(
        cls,
        path: Path,
        description: StoreDescription,
        *,
        noise_key: bytes | None = None,
        master_key: Path | None = None,
    ) -> Self:
        """Make an empty store that only its owner can read.

        Parameters
        ----------
        path : Path
            A file that does not exist.
        description : StoreDescription
            What fixes the store's contents.
        noise_key : bytes, optional
            32 bytes, where a simulation is to be repeatable. By default there is none, as it must be at a hospital.
        master_key : Path, optional
            A file elsewhere for the master key, which is made if it is not there; by default it lies beside the store.

        Raises
        ------
        KeyStoreError
            If the file is there already or cannot be made, or the noise key has another length; nothing is left then.
        """
        create_files(path, description, noise_key, master_key)
        return cls(path, connect(path))

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a store.

        Raises
        ------
        KeyStoreError
            If there is no store, the file is no key store, or its schema version is another.
        """
        if not path.is_file():
            raise KeyStoreError(f"there is no key store {path}; enrol the site's records first (munkey-client enrol)")
        connection: sqlite3.Connection | None = None
        try:
            connection = connect(path)
            check_version(connection, path)
            create_indexes(connection)
            return cls(path, connection)
        except (sqlite3.DatabaseError, KeyStoreError) as error:
            if connection is not None:
                connection.close()
            if isinstance(error, KeyStoreError):
                raise
            if cannot_be_used(error):
                raise KeyStoreError(
                    f"the key store {path} cannot be used ({error}); check its permissions and the free space on its "
                    "disk, and try again when no other process is busy with it"
                ) from None
            raise KeyStoreError(f"{path} is not a readable key store ({error}); restore it from a backup") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and the key file."""
        self._connection.close()
        self.keys.close()

    @property
    def description(self) -> StoreDescription:
        """What fixes the store's contents, and what the site has promised its patients."""
        return self._identity.description

    @property
    def hashes(self) -> ReferenceHashes:
        """Names records and subjects within the store."""
        return self._identity.hashes

    @property
    def master_key(self) -> Path:
        """Where the master key is kept."""
        return self._identity.master_key or master_key_of(self.path)

    def draw_noise_key(self) -> bytes:
        """Return 32 bytes, the seed of one training's privacy noise; they must never be written down or leave the site.

        They are fresh at every call, unless the store was made for a simulation that is to be repeatable.
        """
        return self._identity.draw_noise_key()

    @property
    def generation(self) -> int:
        """How many deletions have changed the bank; training compares it to see whether what it read still holds."""
        return int(self._connection.execute("SELECT generation FROM description").fetchone()[0])

    @property
    def is_restored(self) -> bool:
        """Whether the store is from a backup and has not caught up with deletions; nothing in it can be used then."""
        return bool(self._connection.execute("SELECT restored FROM description").fetchone()[0])

    def _check_caught_up(self) -> None:
        if self.is_restored:
            raise KeyStoreError(
                "the key store was restored from a backup and may hold records that were deleted since; "
                "run munkey-client catch-up first"
            )

    @contextmanager
    def _writing(self, generation: int | None = None) -> Iterator[sqlite3.Connection]:
        """Open a write transaction, after checking that the bank is still the one of `generation`."""
        with writing(self._connection):
            if generation is not None and generation != self.generation:
                raise BankChanged("entries were deleted while in use; what was computed from them is dropped")
            if generation is not None:
                self._check_caught_up()
            yield self._connection
