"""Files that only their owner may use: written so, and refused where they are not."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedmunkey.common.errors import FedmunkeyError, InvalidInput

_LARGEST = 64 * 2**10


def read_private(path: Path, what: str, *, error: type[FedmunkeyError] = InvalidInput) -> bytes:
    """Read a file that holds a secret.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        Names its content in an error, such as "a private key".
    error : type
        What is raised.

    Raises
    ------
    FedmunkeyError
        Of the type `error`, if it cannot be read, or others than its owner can use it.
    """
    try:
        with path.open("rb") as file:
            # Of the open file, so that nobody can put another in its place between the check and the reading.
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise error(
                    f"{path} is {what} that others than its owner can use (mode {mode:04o}); run chmod 600 {path}, "
                    "and replace it if somebody may have read it"
                )
            return file.read(_LARGEST)
    except OSError as fault:
        raise error(f"{path} cannot be read ({fault.strerror}); it should be {what}") from None


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can use, on the disk before this returns.

    Raises
    ------
    FileExistsError
        If the file is there already: a secret is never overwritten.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def replace_file(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file in place of one that may be there, all or nothing, and bring it to the disk."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync_folder(path.parent)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep other processes and threads that lock the same folder waiting until the context ends."""
    opened = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
