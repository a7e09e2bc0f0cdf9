"""Files that only their owner may use: written so, and refused where they are not."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedmunkey.common.errors import FedmunkeyError, InvalidInput

_LARGEST = 64 * 2**10
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}


def read_private(
    path: Path, what: str, *, error: type[FedmunkeyError] = InvalidInput, most: int | None = _LARGEST
) -> bytes:
    """Read a file that holds a secret; `what` names its content in an error, such as "a private key".

    At most so many bytes are read, all of them with None.

    Raises `error` if it cannot be read, or others than its owner can use it.
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
            return file.read(-1 if most is None else most)
    except OSError as fault:
        raise error(f"{path} cannot be read ({fault.strerror}); it should be {what}") from None


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can use, all or nothing, on the disk before this returns.

    A secret is never overwritten: raises `FileExistsError` if the file is there already.
    """
    with _beside(path, content, 0o600) as written:
        try:
            os.link(written, path)
        except OSError as fault:
            # A stick's file system may have no links; then two who write at the same moment are not told apart.
            if fault.errno not in _NO_LINKS:
                raise
            if path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
            written.replace(path)
    sync_folder(path.parent)


def replace_file(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file in place of one that may be there, all or nothing, and bring it to the disk."""
    with _beside(path, content, mode) as written:
        written.replace(path)
    sync_folder(path.parent)


def make_private_folder(path: Path) -> None:
    """Make a folder, or one that is there, its owner's only; raises `InvalidInput` if it cannot be made."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as fault:
        raise InvalidInput(
            f"{path} cannot be made a folder ({fault.strerror}); move away what is there, or name another"
        ) from None


@contextmanager
def _beside(path: Path, content: bytes, mode: int) -> Iterator[Path]:
    """Give a file with some content beside the one that it shall become; it is gone when the context ends."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield beside
    finally:
        beside.unlink(missing_ok=True)


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
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def append_line(path: Path, content: bytes) -> None:
    """Append whole lines to a file that only its owner can use, all or nothing, and bring them to the disk.

    Safe for threads and processes that append at the same time. What a crash has left behind the last whole line is
    removed: it was never counted. Raises `OSError`; the file is then as it was.
    """
    new = not path.exists()
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
        file.seek(whole)
        try:
            while content:
                content = content[file.write(content) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(whole)
            raise
    if new:
        sync_folder(path.parent)
