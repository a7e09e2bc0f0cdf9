"""Faults of the disk and of SQLite, as one line for the person at the keyboard."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from fedmunkey.common.errors import KeyStoreError


@contextmanager
def faults_explained() -> Iterator[None]:
    """Turn what the disk and SQLite raise into errors with a way out; it is a decorator as well.

    Raises `KeyStoreError` in place of any `sqlite3.Error` and any `OSError` but a broken pipe, which is no fault.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except sqlite3.Error as error:
        raise KeyStoreError(
            f"the key store cannot be used ({error}); try again when no other process is busy with it, "
            "and check its disk, the free space on it and its permissions"
        ) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        what = error.strerror or str(error) or type(error).__name__
        raise KeyStoreError(f"{where}{what}; check the path, its permissions and the free space on its disk") from None
