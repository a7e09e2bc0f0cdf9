"""Checking after a deletion that its bytes are gone: in the store's own structure, and in any file of some folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedmunkey.client.key_store.database import StoreDatabase
from fedmunkey.client.key_store.on_disk.encryption import unseal
from fedmunkey.client.key_store.on_disk.schema import CONTENTS
from fedmunkey.client.key_store.readable_copies import readable_copies
from fedmunkey.client.key_store.residue import MOST_FINGERPRINTED, Found, search_file
from fedmunkey.common.deletions.words import Acknowledgement
from fedmunkey.common.errors import KeyStoreError

_MOST_FOUND = 100
"""Places that are named; one is reason enough to look into a file."""


@dataclass(frozen=True)
class ErasureCheck:
    """What was looked at, and what was found.

    Attributes
    ----------
    sampled : int
        Of how many of the deleted records bytes were looked for.
    windows, remembered : int
        16-byte windows of the deleted contents, and how many of them were looked for.
    files, size : int
        Files that were read, and their bytes.
    found : tuple of Found
        Bytes of deleted contents, at most 100 of them.
    faults : tuple of str
        What is wrong in the store's structure.
    """

    order: int
    records: int
    sampled: int
    windows: int
    remembered: int
    files: int
    size: int
    found: tuple[Found, ...]
    unread: tuple[Path, ...]
    faults: tuple[str, ...]

    @property
    def erased(self) -> bool:
        """Whether everything was read and nothing was found of what was looked for."""
        return not (self.found or self.unread or self.faults)


def check_erasure(
    database: StoreDatabase, number: int, folders: Iterable[Path], progress: Callable[[int], None] | None = None
) -> ErasureCheck:
    """Search all files under some folders for the bytes of what an order deleted.

    Links are not followed. `progress` is called with the bytes finished since the last call. Raises `KeyStoreError` if
    the site has not applied the order.
    """
    row = database.connection.execute(
        "SELECT document, finished, content, windows FROM applied_orders LEFT JOIN fingerprints USING (number) "
        "WHERE number = ?",
        (number,),
    ).fetchone()
    if row is None:
        raise KeyStoreError(f"this site has not applied an order {number}; munkey-client status lists those it has")
    document, finished, sealed, windows = row
    remembered = unseal(database.secrets.cipher, "fingerprints", number, sealed) if sealed else b""
    records = Acknowledgement.from_json(document).records
    faults = tuple(_faults(database))
    if not finished:
        faults += ("the deletion was interrupted and is not finished; run munkey-client catch-up",)
    files, size = 0, 0
    found: list[Found] = []
    unread: list[Path] = []
    paths = sorted(set(_files(folders)))
    faults += tuple(readable_copies(database.ciphers, paths))
    for path in paths:
        try:
            found += search_file(path, database.reference_hashes.key, remembered)
            length = path.stat().st_size
        except FileNotFoundError:
            continue
        except OSError:
            unread.append(path)
            continue
        files, size = files + 1, size + length
        if progress is not None:
            progress(length)
    return ErasureCheck(
        order=number,
        records=records,
        sampled=min(records, MOST_FINGERPRINTED),
        windows=windows or 0,
        remembered=len(remembered) // 20,
        files=files,
        size=size,
        found=tuple(found[:_MOST_FOUND]),
        unread=tuple(unread),
        faults=faults,
    )


def _faults(database: StoreDatabase) -> Iterator[str]:
    """Say what of the store belongs to no record: a key, or a content that is not zeros."""
    connection = database.connection
    records = {entry for (entry,) in connection.execute("SELECT entry FROM records")}
    held = set(database.ciphers.held().tolist())
    if orphans := len(held - records):
        yield f"{orphans} record keys of records that are not there"
    if lost := len(records - held):
        yield f"{lost} records without a key"
    for table in CONTENTS:
        query = (
            f"SELECT count(*) FROM {table} LEFT JOIN records USING (entry) "  # noqa: S608 (names of tables)
            "WHERE records.entry IS NULL AND content <> zeroblob(length(content))"
        )
        if left := connection.execute(query).fetchone()[0]:
            yield f"{left} contents in {table} of records that are not there"


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in names:
                path = Path(parent) / name
                if path.is_file() and not path.is_symlink():
                    yield path
