"""The file that a backup is: a key store's whole file, encrypted under a key of the backup's own.

    magic, 4 bytes of length (little-endian), a header of JSON, and then blocks of 1 MiB in AES-256-GCM
    block's nonce = its number in 11 bytes (big-endian), and 1 byte that is 1 for the last block
    additional data of each block = everything before the first block

The backup's key is fresh, and lies wrapped in the site's key file only. So a backup tells nothing by itself, and a copy
of the key file from before the backup does not open it: what is deleted after the backup stays unreadable with both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedmunkey.common.errors import KeyStoreError

MAGIC = b"fedmunkey backup 1\n"

_BLOCK = 2**20
_TAG_BYTES = 16
_LENGTH_BYTES = 4
_LONGEST_HEADER = 64 * 2**10


class BackupHeader(NamedTuple):
    """Where a backup's key lies in the key file, and where the master key is kept; empty, beside the store."""

    slot: int
    master_key: str


def is_sealed(path: Path) -> bool:
    """Return whether a file is a sealed backup; versions before have written the key store's file as it is."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def seal_backup(source: Path, output: BinaryIO, key: bytes, header: BackupHeader) -> None:
    """Encrypt a file into another, and bring that to the disk."""
    written = json.dumps(header._asdict()).encode()
    start = MAGIC + len(written).to_bytes(_LENGTH_BYTES, "little") + written
    output.write(start)
    cipher = AESGCM(key)
    with source.open("rb") as file:
        for nonce, block in _blocks(file, _BLOCK):
            output.write(cipher.encrypt(nonce, block, start))
    output.flush()
    os.fsync(output.fileno())


def read_header(backup: Path) -> BackupHeader:
    """Return what a sealed backup says of its key; raises `KeyStoreError` if that cannot be read."""
    with backup.open("rb") as file:
        return _read_start(file, backup)[1]


def unseal_backup(backup: Path, output: Path, key: bytes) -> None:
    """Decrypt a backup into a file that is there; raises `KeyStoreError` if it was changed or cut off."""
    cipher = AESGCM(key)
    with backup.open("rb") as file, output.open("wb") as opened:
        start, _ = _read_start(file, backup)
        try:
            for nonce, block in _blocks(file, _BLOCK + _TAG_BYTES):
                opened.write(cipher.decrypt(nonce, block, start))
        except InvalidTag:
            raise _damaged(backup) from None


def _read_start(file: BinaryIO, backup: Path) -> tuple[bytes, BackupHeader]:
    start = file.read(len(MAGIC) + _LENGTH_BYTES)
    length = int.from_bytes(start[len(MAGIC) :], "little")
    written = file.read(length) if length <= _LONGEST_HEADER else b""
    try:
        return start + written, BackupHeader(**json.loads(written))
    except (ValueError, TypeError):
        raise _damaged(backup) from None


def _blocks(file: BinaryIO, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield each block of a file, one at least, with its nonce."""
    number, block = 0, file.read(size)
    while following := file.read(size):
        yield number.to_bytes(11, "big") + b"\0", block
        number, block = number + 1, following
    yield number.to_bytes(11, "big") + b"\1", block


def _damaged(backup: Path) -> KeyStoreError:
    return KeyStoreError(f"{backup} is not a readable backup (it was changed or cut off); take another one")
