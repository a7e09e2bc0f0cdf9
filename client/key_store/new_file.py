"""Making a small file that only its owner can read, so that it appears complete or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from fedmunkey.common.errors import KeyStoreError

_OWNER_ONLY = 0o600


def make_file(path: Path, content: bytes) -> None:
    """Make a file and bring it to the disk.

    Raises
    ------
    FileExistsError
        If it is there already; it stays as it was.
    KeyStoreError
        If it cannot be written, because the disk is full or the folder may not be written to; nothing is left then.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        try:
            file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _OWNER_ONLY)
            try:
                write_all(file, content)
                os.fsync(file)
            finally:
                os.close(file)
            os.link(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise KeyStoreError(
            f"{path} cannot be made ({error.strerror}); check its folder's permissions and the free space on its disk"
        ) from None


def write_all(file: int, content: bytes) -> None:
    """Write at the file's own place until everything is written; a disk that is full raises `OSError`."""
    while content:
        content = content[os.write(file, content) :]


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
