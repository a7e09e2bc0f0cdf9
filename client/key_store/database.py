"""What the parts of an open key store share: its connection and secrets, the records' ciphers and the journal."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedmunkey.client.key_store.on_disk.contents import StoreDescription
from fedmunkey.client.key_store.on_disk.journal import Journal
from fedmunkey.client.key_store.on_disk.kept_instructions import KeptInstructions
from fedmunkey.client.key_store.on_disk.record_ciphers import RecordCiphers, cipher_file_of
from fedmunkey.client.key_store.on_disk.reference_hashes import ReferenceHashes
from fedmunkey.client.key_store.on_disk.schema import writing
from fedmunkey.client.key_store.on_disk.store_secrets import StoreSecrets, read_secrets
from fedmunkey.common.errors import BankChanged, KeyStoreError


@dataclass(frozen=True)
class StoreDatabase:
    """One open key store, and what has to hold before anything in it is used."""

    connection: sqlite3.Connection
    secrets: StoreSecrets
    ciphers: RecordCiphers
    journal: Journal
    instructions: KeptInstructions

    @classmethod
    def of(
        cls, path: Path, connection: sqlite3.Connection, journal: Journal, master: bytes | None = None
    ) -> StoreDatabase:
        """Open what lies beside a store; its master key is read from its file, unless it is in memory only.

        Raises `KeyStoreError` if the master key or the key file cannot be used.
        """
        secrets = read_secrets(connection, path, master)
        ciphers = RecordCiphers(cipher_file_of(path), secrets.master, secrets.reference_hashes.key)
        instructions = KeptInstructions(connection, journal, secrets.cipher, secrets.reference_hashes)
        return cls(connection, secrets, ciphers, journal, instructions)

    @property
    def description(self) -> StoreDescription:
        """What fixes the store's contents, and what the site has promised its patients."""
        return self.secrets.description

    @property
    def reference_hashes(self) -> ReferenceHashes:
        """Names records and subjects within the store."""
        return self.secrets.reference_hashes

    @property
    def generation(self) -> int:
        """How many deletions have changed the bank; training compares it to see whether what it read still holds."""
        return int(self.connection.execute("SELECT generation FROM description").fetchone()[0])

    @property
    def is_restored(self) -> bool:
        """Whether the store, from a backup or made anew, has not caught up with deletions; it cannot be used then."""
        return bool(self.connection.execute("SELECT restored FROM description").fetchone()[0])

    def check_caught_up(self) -> None:
        """Raise `KeyStoreError` if the store is restored or made anew, and has not caught up."""
        if self.is_restored:
            raise KeyStoreError(
                "the key store was restored from a backup, or lost what it had carried out, and may hold records that "
                "were deleted since; run munkey-client catch-up first"
            )

    def check_key_file(self) -> None:
        """Raise `KeyStoreError` if the last record has no key: the key file was put back from before it came.

        In a restored store that is no fault.
        """
        last = "SELECT max(entry) FROM records"
        (entry,) = self.connection.execute(last).fetchone()
        if entry is None or self.is_restored or any(self.ciphers.read_slots(np.array([entry]))[0]):
            return
        # A deletion may have come in between: it takes the record before its key.
        if self.connection.execute(last).fetchone() == (entry,):
            raise KeyStoreError(
                f"the key file {self.ciphers.path} is older than the key store, whose last records it has no keys of; "
                "put the present one back, or move both away, leave journal and master key, and enrol the records again"
            )

    @contextmanager
    def writing(self, generation: int | None = None) -> Iterator[sqlite3.Connection]:
        """Open a write transaction; raises `BankChanged` if the bank is no longer the one of `generation`."""
        with writing(self.connection):
            if generation is not None and generation != self.generation:
                raise BankChanged("entries were deleted while in use; what was computed from them is dropped")
            if generation is not None:
                self.check_caught_up()
            yield self.connection
