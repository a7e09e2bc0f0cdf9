"""Reading files as bytes that SQLite may have open in this process.

When a process closes any descriptor of a file, POSIX takes all of its locks off that file (fcntl(2)). Another process
then takes SQLite's file for unused and removes the log beside it, while this one still reads and writes there: what is
written is lost. So a descriptor of such a file, once it was opened here, stays open.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MAGIC = b"SQLite format 3\0"
_SHARED_MEMORY = "-shm"

_kept: dict[tuple[int, int], int] = {}
_lock = threading.Lock()


class _Raw(io.RawIOBase):
    """Reads from a descriptor that it does not own, with a place of its own."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._place = 0

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Read what comes next."""
        read = os.pread(self._descriptor, len(buffer), self._place)
        buffer[: len(read)] = read
        self._place += len(read)
        return len(read)


@contextmanager
def opened_raw(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file for reading; locks that SQLite has on it stay. Raises `OSError` if it cannot be opened."""
    with _lock:
        found = path.stat()
        descriptor = _kept.get((found.st_dev, found.st_ino))
        keeps = descriptor is not None
        if descriptor is None:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            keeps = path.name.endswith(_SHARED_MEMORY) or os.pread(descriptor, len(_MAGIC), 0) == _MAGIC
            if keeps:
                opened = os.fstat(descriptor)
                _kept[opened.st_dev, opened.st_ino] = descriptor
    try:
        yield io.BufferedReader(_Raw(descriptor))
    finally:
        if not keeps:
            os.close(descriptor)
