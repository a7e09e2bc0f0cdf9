"""What the deletion of a record depends on, before any is deleted: tables and connections."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmunkey.client.key_store.on_disk.schema import CONTENTS, connect, create_tables, not_waiting_for_disk


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = connect(tmp_path / "keystore.sqlite")
    create_tables(connection)
    yield connection
    connection.close()


def pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def tables(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return sorted(name for (name,) in found)


@pytest.mark.parametrize(
    ("name", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("secure_delete", 1), ("temp_store", 2)],
)
def test_connection_keeps_nothing_of_what_it_deletes(connection: sqlite3.Connection, name: str, value: object) -> None:
    assert pragma(connection, name) == value


def test_everything_about_a_record_goes_with_it(connection: sqlite3.Connection) -> None:
    about_records = [table for table in tables(connection) if "entry" in columns(connection, table)]

    assert about_records == [
        *("doomed_record_keys", "ids", "inputs", "kept_tokens", "keys", "neighbours", "records", "tokens")
    ]
    for table in set(about_records) - {*CONTENTS, "doomed_record_keys"}:
        keys = connection.execute(f"PRAGMA foreign_key_list({table})").fetchall()
        linked = {key[3] for key in keys if (key[2], key[6]) == ("records", "CASCADE")}
        assert linked == ({"entry", "neighbour"} & columns(connection, table) if table != "records" else set())


def test_row_that_sqlite_may_move_holds_nothing_but_hashes(connection: sqlite3.Connection) -> None:
    blobs = {row[1] for row in connection.execute("PRAGMA table_info(records)") if row[2] == "BLOB"}

    assert blobs == {"record_hash", "subject_hash", "image_hash"}


def columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def test_tables_are_made_all_or_none(tmp_path: Path) -> None:
    connection = connect(tmp_path / "keystore.sqlite")
    connection.execute("CREATE TABLE applied_orders (number INTEGER)")

    with pytest.raises(sqlite3.OperationalError):
        create_tables(connection)
    connection.execute("ROLLBACK")

    assert tables(connection) == ["applied_orders"]
    assert pragma(connection, "user_version") == 0
    connection.close()


def test_next_commit_waits_for_the_disk_again(connection: sqlite3.Connection) -> None:
    with not_waiting_for_disk(connection):
        assert pragma(connection, "synchronous") == 1
    assert pragma(connection, "synchronous") == 2

    with pytest.raises(RuntimeError), not_waiting_for_disk(connection):
        raise RuntimeError
    assert pragma(connection, "synchronous") == 2
