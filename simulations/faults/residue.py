"""Bytes of what was deleted, wherever they lie: every file of a site is searched for pieces of what it held.

Contents, ids and wrapped record keys are taken from the key store's files as they lie on the disk, so it makes no
difference whether they are encrypted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.key_store.on_disk.record_ciphers import SLOT_BYTES, cipher_file_of, is_of_backup
from fedmunkey.client.key_store.on_disk.schema import CONTENTS

PIECE = 16
"""Contents are searched for in pieces of so many bytes, at any offset."""

_WORD = PIECE // 2
_FEWEST_VALUES = 8
"""A piece with fewer different bytes, such as one of zeros, could be anybody's."""

_BLOCK = 1 << 20


@dataclass
class Contents:
    """Pieces of each record's contents that were ever seen on a site's disk, by record."""

    pieces: dict[int, set[bytes]] = field(default_factory=dict)

    def note(self, store: Path, entries: dict[int, int]) -> None:
        """Add what a key store's file holds at this moment of some records, given with their entry numbers."""
        with closing(sqlite3.connect(store, timeout=60)) as connection, cipher_file_of(store).open("rb") as keys:
            for record, entry in entries.items():
                keys.seek(entry * SLOT_BYTES)
                contents = [keys.read(SLOT_BYTES)]
                for table in CONTENTS:
                    query = f"SELECT content FROM {table} WHERE entry = ?"  # noqa: S608 (names of tables)
                    contents += [content for (content,) in connection.execute(query, (entry,))]
                found = set().union(*map(_pieces, contents))
                if found:
                    self.pieces.setdefault(record, set()).update(found)

    def residue(self, folder: Path, gone: Iterable[int]) -> int:
        """Return how many bytes of the contents of records that are gone are found in the files of a folder.

        Pieces that a record which is still held has as well do not count.
        """
        gone = set(gone)
        held = set().union(*(pieces for record, pieces in self.pieces.items() if record not in gone))
        sought = set().union(*(self.pieces.get(record, set()) for record in gone)) - held
        if not sought:
            return 0
        return PIECE * sum(len(_found(path, sought)) for path in sorted(folder.rglob("*")) if path.is_file())


def not_overwritten(store: Path) -> int:
    """Return how many bytes other than zero stand in contents, and in slots of keys, whose record is gone."""
    with closing(sqlite3.connect(store)) as connection:
        contents = [
            content
            for table in CONTENTS
            for (content,) in connection.execute(
                f"SELECT content FROM {table} WHERE entry NOT IN (SELECT entry FROM records)"  # noqa: S608
            )
        ]
        held = {entry for (entry,) in connection.execute("SELECT entry FROM records")}
    keys = cipher_file_of(store).read_bytes()
    slots = [keys[start : start + SLOT_BYTES] for start in range(0, len(keys), SLOT_BYTES)]
    contents += [slot for entry, slot in enumerate(slots) if entry > 0 and entry not in held and not is_of_backup(slot)]
    return sum(len(content) - content.count(0) for content in contents)


def _pieces(content: bytes) -> set[bytes]:
    pieces = {content[at : at + PIECE] for at in range(0, len(content) - PIECE + 1, PIECE)}
    return {piece for piece in pieces if len(set(piece)) >= _FEWEST_VALUES}


def _found(path: Path, sought: set[bytes]) -> set[bytes]:
    """Return the sought pieces that a file holds, at whatever offset."""
    first = np.unique(np.frombuffer(b"".join(piece[:_WORD] for piece in sought), dtype=np.uint64))
    found = set[bytes]()
    with path.open("rb") as file:
        before = b""
        while block := file.read(_BLOCK):
            data = before + block
            for at in _offsets(data, first):
                piece = data[at : at + PIECE]
                if piece in sought:
                    found.add(piece)
            before = data[-(PIECE - 1) :]
    return found


def _offsets(data: bytes, words: NDArray[np.uint64]) -> list[int]:
    """Return where in some bytes one of the sorted 8-byte words begins."""
    if len(data) < _WORD:
        return []
    windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, dtype=np.uint8), _WORD)
    values = np.ascontiguousarray(windows).view(np.uint64)[:, 0]
    at = np.searchsorted(words, values).clip(max=len(words) - 1)
    return np.flatnonzero(words[at] == values).tolist()
