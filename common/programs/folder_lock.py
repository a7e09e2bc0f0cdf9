"""Locks on a machine's folder, one for each program that is to run there once: a second one is told who runs it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import InvalidSetting, ProcessNotStarted

_SUFFIX = ".running"


@contextlib.contextmanager
def held(folder: Path, programs: Sequence[str], *, clock: Callable[[], datetime] = utc_now) -> Iterator[None]:
    """Hold a folder's lock for each program while the context lasts; the system frees them however this process ends.

    Raises `ProcessNotStarted`, which says by which process and since when, if another process holds one of them.
    """
    with contextlib.ExitStack() as stack:
        for program in programs:
            stack.enter_context(_held(folder, program, clock))
        yield


def holder(folder: Path, program: str) -> str | None:
    """Return who holds a folder's lock for a program, in words; None if nobody does."""
    try:
        descriptor = os.open(folder / f"{program}{_SUFFIX}", os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(descriptor)
    finally:
        os.close(descriptor)
    return None


@contextlib.contextmanager
def _held(folder: Path, program: str, clock: Callable[[], datetime]) -> Iterator[None]:
    path = folder / f"{program}{_SUFFIX}"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise InvalidSetting(f"{path} cannot be written: {error.strerror}; give this user the folder") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ProcessNotStarted(
                f"{program} of {folder} is running already, {_read(descriptor)}; stop that one first, or leave it"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} since {clock():%Y-%m-%d %H:%M:%S} UTC".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> str:
    # Whoever has just taken the lock may not have written yet who it is.
    return os.pread(descriptor, 200, 0).decode(errors="replace") or "by a process that has just begun"
