"""Key files beside the site's own: with one of them, contents that a deletion has made unreadable can be read again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from fedmunkey.client.key_store.on_disk.raw_reading import opened_raw
from fedmunkey.client.key_store.on_disk.record_ciphers import KEY_BYTES, RecordCiphers, holds_keys_of

_LONGEST_MASTER = 256


def readable_copies(own: RecordCiphers, files: Iterable[Path]) -> Iterator[str]:
    """Say which files hold record keys that the site's master key, or one that lies in the site's folder, can open.

    Elsewhere, where other stores may lie, only copies of the site's own key file count.
    """
    site = own.path.parent
    files = list(files)
    inside = {path for path in files if path.is_relative_to(site)}
    masters = {own.master, *(master for path in inside if (master := _read_master(path)))}
    for path in files:
        with suppress(OSError):
            if path.samefile(own.path):
                continue
            if own.is_copy(path) or (path in inside and any(holds_keys_of(path, master) for master in masters)):
                yield (
                    f"{path} is another key file with keys of records, so a copy of what was deleted may be readable "
                    "with it; remove the file, or take its store out of the site's folder"
                )


def _read_master(path: Path) -> bytes:
    """Return the master key that a file holds; empty if it holds none."""
    with suppress(OSError, ValueError), opened_raw(path) as file:
        if os.fstat(file.fileno()).st_size <= _LONGEST_MASTER:
            found = bytes.fromhex(file.read(_LONGEST_MASTER).decode("ascii").strip())
            return found if len(found) == KEY_BYTES else b""
    return b""
