"""The ledger on SQLite and on PostgreSQL, and what only a file can do wrong."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError

from fedmunkey.common.errors import InvalidSetting, ServiceUnavailable
from fedmunkey.server.ledger.ledger import Ledger
from tests.server.ledger.ledger_contract import REQUEST, Clock, LedgerContract
from tests.server.ledger.ledger_states_contract import LedgerStatesContract


class TestLedger(LedgerContract, LedgerStatesContract):
    @pytest.fixture
    def ledger(self, database: str, clock: Clock) -> Iterator[Ledger]:
        with Ledger(database, clock=clock) as ledger:
            for site in ("hospital-1", "hospital-2"):
                ledger.register(site)
            yield ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "coordinator" / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger(path) as ledger:
        ledger.register("hospital-1")
        yield ledger


def test_failure_between_request_and_orders_leaves_nothing_behind(ledger: Ledger) -> None:
    with ledger._engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON orders BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
        )

    with pytest.raises(ServiceUnavailable, match="disk is full"):
        ledger.enter(REQUEST, ["hospital-1"])

    assert ledger.page().statuses == ()


def test_file_is_for_its_owner_only_and_durable(path: Path, ledger: Ledger) -> None:
    ledger.enter(REQUEST, ["hospital-1"])

    modes = {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {0o600}
    with ledger._engine.connect() as connection:
        answers = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert answers == ["wal", 2, 1]


def test_writing_to_a_broken_database_says_so(ledger: Ledger) -> None:
    with ledger._engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE rounds")

    with pytest.raises(ServiceUnavailable, match="no such table: rounds") as caught:
        ledger.open_round(1)

    assert not isinstance(caught.value, SQLAlchemyError)


def test_other_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE patients (name TEXT)")

    with pytest.raises(InvalidSetting, match="not a ledger"):
        Ledger(path)

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("patients",)]


def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to look at")

    with pytest.raises(InvalidSetting, match="not a database"):
        Ledger(path)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "unknown://user:secret@host/name", "://"])
def test_database_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        Ledger(url)

    assert "secret" not in str(caught.value)


def test_ledger_may_be_named_by_a_url(path: Path, ledger: Ledger) -> None:
    ledger.enter(REQUEST, ["hospital-1"])

    with Ledger(f"sqlite:///{path}") as again:
        assert again.status("request-1").request == REQUEST
