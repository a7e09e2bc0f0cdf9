"""Folders within a site's folder in which something is made aside; what a killed process leaves of one is swept.

Whoever uses such a folder has it locked, and a lock ends with its process.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIXES = (".verifying-", ".enrolling-", ".backing-up-")


@contextmanager
def folder_aside(parent: Path, purpose: str) -> Iterator[Path]:
    """Give a folder that is gone when the context ends, or at the next `sweep` after a kill."""
    while True:
        made = Path(tempfile.mkdtemp(prefix=f".{purpose}-", dir=parent))
        # Another process may sweep it before it is locked, and before it is opened.
        try:
            opened = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        fcntl.flock(opened, fcntl.LOCK_EX)
        if made.exists():
            break
        os.close(opened)
    try:
        # One within: what makes a journal locks its folder by itself.
        inside = made / "made"
        inside.mkdir()
        yield inside
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(opened)


def sweep(parent: Path) -> None:
    """Remove what killed processes have left aside; folders in use stay."""
    for left in [path for path in _entries(parent) if path.name.startswith(_PREFIXES)]:
        try:
            opened = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(opened)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
