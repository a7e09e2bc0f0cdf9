"""Files that SQLite has open are read as bytes without taking its locks off them."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.key_store.on_disk.raw_reading import opened_raw
from fedmunkey.client.key_store.residue import search_file

_ANOTHER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("INSERT INTO backups VALUES ('now', 0)")
connection.commit()
connection.close()
"""


def another_process_writes(journal: Path) -> None:
    subprocess.run([sys.executable, "-c", _ANOTHER, str(journal)], check=True)  # noqa: S603


def log_of(journal: Path) -> Path:
    return journal.with_name(f"{journal.name}-wal")


def test_store_that_is_opened_again_does_not_cost_its_journal_what_is_written(store: KeyStore) -> None:
    journal = store.journal.path
    assert store.journal.query("SELECT * FROM backups") == []

    # It looks at the journal's first byte, as versions before wrote lines.
    with closing(KeyStore.open(store.path)):
        pass
    another_process_writes(journal)

    # The other process was the last to close it, had this one no lock.
    assert log_of(journal).exists()
    with store.journal.writing() as connection:
        connection.execute("INSERT INTO backups VALUES ('later', 1)")
    store.journal.close()
    with closing(sqlite3.connect(journal)) as connection:
        assert connection.execute("SELECT at FROM backups ORDER BY rowid").fetchall() == [("now",), ("later",)]


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_search_for_what_was_deleted_leaves_locks_alone(store: KeyStore, suffix: str) -> None:
    journal = store.journal.path
    store.journal.query("SELECT * FROM backups")

    for _ in range(2):
        assert list(search_file(journal.with_name(journal.name + suffix), b"k" * 32, b"")) == []
    another_process_writes(journal)

    assert log_of(journal).exists()
    assert store.journal.query("SELECT at FROM backups") == [("now",)]


def test_other_files_are_closed_and_each_reading_begins_at_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "some"
    path.write_bytes(b"0123456789")
    before = len(list(Path("/proc/self/fd").iterdir()))

    found = []
    for _ in range(2):
        with opened_raw(path) as file:
            found.append((file.read(4), file.read(4), file.read(), file.read(1)))

    assert found == [(b"0123", b"4567", b"89", b"")] * 2
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    with pytest.raises(FileNotFoundError), opened_raw(tmp_path / "none"):
        pass
