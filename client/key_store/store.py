"""A site's key store: one SQLite file with its records, keys, exemplar tokens and the orders it has applied.

Nothing in it ever leaves the site. Several processes may have it open: each call is one transaction, and whatever was
computed from a bank that deletions have changed since is refused (`BankChanged`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from fedmunkey.client.key_store.aside import folder_aside, sweep
from fedmunkey.client.key_store.database import StoreDatabase
from fedmunkey.client.key_store.on_disk.contents import StoreDescription
from fedmunkey.client.key_store.on_disk.creation import create_files
from fedmunkey.client.key_store.on_disk.journal import Journal, Kept
from fedmunkey.client.key_store.on_disk.lost_journal import known_epoch, write_again
from fedmunkey.client.key_store.on_disk.record_ciphers import master_key_of
from fedmunkey.client.key_store.on_disk.remembering import tell_hashes
from fedmunkey.client.key_store.on_disk.restoration import back_up, finish_restoring
from fedmunkey.client.key_store.on_disk.schema import cannot_be_used, connect
from fedmunkey.client.key_store.on_disk.taking_over import open_store, take_over_journal, take_over_receipts
from fedmunkey.client.key_store.orders import AppliedOrders
from fedmunkey.client.key_store.privacy import PrivacyAccount
from fedmunkey.client.key_store.records import HeldRecords
from fedmunkey.client.key_store.staging import Staging
from fedmunkey.common.errors import BankChanged, KeyStoreError

T = TypeVar("T")


class KeyStore:
    """One open key store; `create` and `open` make it, and it is a context manager.

    Attributes
    ----------
    description : StoreDescription
        What fixes the store's contents, and what the site has promised its patients.
    reference_hashes : ReferenceHashes
        Names records and subjects within the store.
    records : HeldRecords
        What the site holds.
    orders : AppliedOrders
        What it has been told to forget.
    staging : Staging
        Corrected records that wait for the order which erases the present ones.
    privacy : PrivacyAccount
        What training has spent of its patients' privacy.
    instructions : KeptInstructions
        Legal holds and the opt-out list, as far as the site has heard and believes them.
    ciphers : RecordCiphers
        The record keys, which deletions destroy.
    journal : Journal
        What outlives a restored backup.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, master: bytes | None = None) -> None:
        self.path = path
        self.journal = Journal(path)
        self.database = StoreDatabase.of(path, connection, self.journal, master)
        self.description = self.database.description
        self.reference_hashes = self.database.reference_hashes
        take_over_journal(self.journal, self.description)
        if not self.journal.path.exists():
            write_again(connection, self.journal, self.database.ciphers)
        take_over_receipts(self.journal)
        # What cannot be told at a damaged journal is told when it is whole again.
        with suppress(KeyStoreError):
            tell_hashes(connection, self.journal, self.database.ciphers.master, self.reference_hashes.key)
        self.ciphers = self.database.ciphers
        self.ciphers.check_epoch(known_epoch(connection, self.journal))
        self.database.check_key_file()
        self.instructions = self.database.instructions
        self.privacy = PrivacyAccount(self.database)
        self.records = HeldRecords(self.database, self.privacy)
        self.orders = AppliedOrders(self.database, self.privacy)
        self.staging = Staging(self.database, path.parent)

    @classmethod
    def create(
        cls,
        path: Path,
        description: StoreDescription,
        *,
        noise_key: bytes | None = None,
        master_key: Path | bytes | None = None,
        earlier: Path | None = None,
    ) -> Self:
        """Make an empty store that only its owner can read, in a file that does not exist.

        Where the journal of an earlier store lies, it knows what that knew, and has to hear its orders again.

        Parameters
        ----------
        path, description
            The SQLite file, and what fixes the store's contents.
        noise_key : bytes, optional
            32 bytes, where a simulation is to be repeatable. By default there is none, as it must be at a hospital.
        master_key : Path or bytes, optional
            A file elsewhere for the master key, which is made if it is not there; by default it lies beside the store.
            32 bytes are kept in memory only, so that nobody can read the store once it is closed.
        earlier : Path, optional
            Where an earlier store of the site was, if not here.

        Raises
        ------
        KeyStoreError
            If the file is there already or cannot be made, or the noise key has another length; nothing is left then.
        """
        create_files(path, description, noise_key, master_key, earlier)
        return cls(path, connect(path), master_key if isinstance(master_key, bytes) else None)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a store, and bring up to date what the version before has left.

        Raises `KeyStoreError` if there is none, or the file is no key store of a schema version that is known.
        """
        if not path.is_file():
            raise KeyStoreError(
                f"there is no key store {path}; enrol the site's records first (munkey-client enrol, or import)"
            )
        connection: sqlite3.Connection | None = None
        sweep(path.parent)
        try:
            connection = open_store(path)
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
        """Close the store's files."""
        self.database.connection.close()
        self.ciphers.close()
        self.journal.close()

    @property
    def generation(self) -> int:
        """How many deletions have changed the bank; training compares it to see whether what it read still holds."""
        return self.database.generation

    def until_unchanged(self, read: Callable[[int], T]) -> T:
        """Return what `read` makes of the bank of a generation; it is called again until no deletion came meanwhile.

        It may raise `BankChanged` as soon as it sees that one has.
        """
        while True:
            generation = self.generation
            try:
                found = read(generation)
            except BankChanged:
                continue
            if self.generation == generation:
                return found

    @property
    def is_restored(self) -> bool:
        """Whether the store, from a backup or made anew, has not caught up with deletions; it cannot be used then."""
        return self.database.is_restored

    @property
    def master_key(self) -> Path:
        """Where the master key is kept."""
        return self.database.secrets.master_key or master_key_of(self.path)

    def draw_noise_key(self) -> bytes:
        """Return 32 bytes, the seed of one training's privacy noise; they must never be written down or leave the site.

        They are fresh at every call, unless the store was made for a simulation that is to be repeatable.
        """
        return self.database.secrets.draw_noise_key()

    def back_up(self, output: Path, now: datetime) -> int:
        """Copy the store, while it is in use, into a new sealed file; return its size in bytes.

        Raises `KeyStoreError` if the file is there already or cannot be written, or the store itself is restored and
        has not caught up.
        """
        self.database.check_caught_up()
        with folder_aside(self.path.parent, "backing-up") as aside:
            size = back_up(self.database.connection, self.ciphers, output, aside)
        try:
            self.journal.add(Kept.BACKUPS, (now.isoformat(), self.orders.last))
        except KeyStoreError:
            output.unlink()
            raise
        return size

    def last_backup(self) -> str | None:
        """Return when the last backup was taken, ISO 8601 in UTC; None before the first."""
        taken = self.journal.query("SELECT at FROM backups ORDER BY rowid DESC LIMIT 1")
        return str(taken[0][0]) if taken else None

    def wait_for_catch_up(self) -> None:
        """Have nothing in the store be used, as in a restored one, before every order has been applied again."""
        with self.database.writing() as connection:
            connection.execute("UPDATE description SET restored = 1, generation = generation + 1")

    def finish_restoring(self) -> int:
        """Make a restored store usable after every order since the backup has been applied again.

        Records whose record keys were destroyed go, whether an order named them or not, and so do record keys without
        a record. Returns how many records no order named, because the coordinator has forgotten it.
        """
        if not self.is_restored:
            return 0
        return finish_restoring(self.database.connection, self.ciphers, self.journal)
