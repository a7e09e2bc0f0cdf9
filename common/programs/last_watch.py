"""Ends what a program has started, at any depth, once that program is gone, however it went.

What is started carries a mark in its environment, which its own children inherit, whatever session or group they make
for themselves. A small process beside the program waits for the end of a pipe, which nothing but the program's end
can bring about, and then ends every process with the mark.

Run as a program with the mark.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from fedmunkey.common.programs.supervision import own_program

VARIABLE = "MUNKEY_STARTED_BY"
"""The environment variable that holds the mark."""

_GRACE_SECONDS = 3.0
_LAST_SECONDS = 10.0
_POLL_SECONDS = 0.05
_PROCESSES = Path("/proc")


@contextlib.contextmanager
def last_watch() -> Iterator[Mapping[str, str]]:
    """Give the environment that marks what is started while the context lasts; all of it ends with this process.

    What is left when the context ends is ended then.
    """
    mark = uuid.uuid4().hex
    watcher = subprocess.Popen(  # noqa: S603 (the project's own program)
        own_program("fedmunkey.common.programs.last_watch", mark), stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield {VARIABLE: mark}
    finally:
        if watcher.stdin is not None:
            watcher.stdin.close()
        watcher.wait()


def marked(mark: str) -> list[int]:
    """Return the ids of this user's processes that carry a mark."""
    wanted = f"{VARIABLE}={mark}".encode()
    found = []
    for entry in _PROCESSES.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def end_marked(mark: str, *, grace: float = _GRACE_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
    """End every process with a mark: with SIGTERM, and after some seconds of grace with SIGKILL."""
    _signal(marked(mark), signal.SIGTERM)
    begun = clock()
    # One that waits for a disk cannot be killed, and is not waited for.
    while (left := marked(mark)) and clock() < begun + grace + _LAST_SECONDS:
        if clock() >= begun + grace:
            _signal(left, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _signal(processes: list[int], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, number)


def main() -> None:
    """Wait until whoever has started this is gone, then end what carries the mark."""
    # Who stops the program stops it, not what cleans up after it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    end_marked(sys.argv[1])
