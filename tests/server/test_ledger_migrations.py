"""Ledgers of older versions are brought up to date, in a checkout as in an installed package."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from fedmunkey.common.deletion import (
    DATA_PROTECTION_OFFICER,
    DeletionRequest,
    Records,
    RequestState,
    SiteState,
    Subject,
)
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.server.ledger import DeletionExists, Ledger
from fedmunkey.server.ledger_database import have_to_itself, ledger_url, open_engine
from fedmunkey.server.ledger_schema import SCHEMA_REVISION, configuration
from fedmunkey.server.ledger_tables import Base
from fedmunkey.server.migrations import VERSION_TABLE
from tests.server.databases import postgresql_database
from tests.server.ledger_contract import references

NOON = datetime(2025, 5, 17, 12, tzinfo=UTC)
OLD_TABLES = """
    CREATE TABLE ledger_schema (version INTEGER NOT NULL PRIMARY KEY);
    CREATE TABLE sites (name VARCHAR(100) NOT NULL PRIMARY KEY, registered_at {time} NOT NULL);
    CREATE TABLE requests (
        number {serial}, request_id VARCHAR(200) NOT NULL UNIQUE,
        requester VARCHAR(100) NOT NULL, target_kind VARCHAR(10) NOT NULL, target_site VARCHAR(100) NOT NULL,
        subject_reference {bytes}, reference_count INTEGER NOT NULL, submitted_at {time} NOT NULL);
    CREATE TABLE request_references (
        request INTEGER NOT NULL REFERENCES requests (number), first INTEGER NOT NULL, block {bytes} NOT NULL,
        PRIMARY KEY (request, first));
    CREATE TABLE orders (
        site VARCHAR(100) NOT NULL REFERENCES sites (name), number INTEGER NOT NULL,
        request INTEGER NOT NULL REFERENCES requests (number), PRIMARY KEY (site, number), UNIQUE (request, site));
    CREATE TABLE acknowledgements (
        site VARCHAR(100) NOT NULL, number INTEGER NOT NULL, state VARCHAR(20) NOT NULL, records BIGINT NOT NULL,
        entries BIGINT NOT NULL, guarantee VARCHAR(20) NOT NULL, seconds {double} NOT NULL, reason TEXT NOT NULL,
        record_epsilon {double}, record_delta {double}, subject_epsilon {double}, subject_delta {double},
        subject_records BIGINT, acknowledged_at {time} NOT NULL, PRIMARY KEY (site, number),
        FOREIGN KEY (site, number) REFERENCES orders (site, number));
    CREATE TABLE rounds ({opening}, number BIGINT NOT NULL, opened_at {time} NOT NULL);
    INSERT INTO ledger_schema VALUES ({version});
    INSERT INTO sites VALUES ('hospital-1', '2025-05-01 08:00:00'), ('hospital-2', '2025-05-01 08:00:00');
"""
"""The tables of schema version 2, as the program that made them wrote them, with two sites."""


def make_old(connection: Connection, version: int) -> None:
    sqlite = connection.dialect.name == "sqlite"
    serial = "INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT" if sqlite else "SERIAL PRIMARY KEY"
    words = {
        "serial": serial,
        "opening": f"opening {serial}",
        "time": "DATETIME" if sqlite else "TIMESTAMP",
        "double": "DOUBLE" if sqlite else "DOUBLE PRECISION",
        "bytes": "BLOB" if sqlite else "BYTEA",
        "version": version,
    }
    for statement in OLD_TABLES.format(**words).split(";")[:-1]:
        connection.execute(text(statement))


def fill_old(connection: Connection) -> None:
    request = text(
        "INSERT INTO requests (request_id, requester, target_kind, target_site, subject_reference, reference_count, "
        "submitted_at) VALUES (:id, 'data-protection-officer', :kind, '', :subject, :count, '2025-05-17 12:00:00')"
    )
    connection.execute(request, {"id": "done", "kind": "subject", "subject": bytes(32), "count": 0})
    connection.execute(request, {"id": "waits", "kind": "records", "subject": None, "count": 1500})
    blocks = sorted(references(1500))
    for first in (0, 1000):
        connection.execute(
            text("INSERT INTO request_references VALUES (2, :first, :block)"),
            {"first": first, "block": b"".join(blocks[first : first + 1000])},
        )
    for site in ("hospital-1", "hospital-2"):
        for number in (1, 2):
            connection.execute(
                text("INSERT INTO orders VALUES (:site, :number, :number)").bindparams(site=site, number=number)
            )
    answer = text(
        "INSERT INTO acknowledgements (site, number, state, records, entries, guarantee, seconds, reason, "
        "acknowledged_at) VALUES (:site, :number, :state, 0, 0, 'exact', 0.5, '', '2025-05-17 12:00:05')"
    )
    for site, number, state in (
        ("hospital-1", 1, "erased"),
        ("hospital-2", 1, "nothing-held"),
        ("hospital-1", 2, "erased"),
    ):
        connection.execute(answer, {"site": site, "number": number, "state": state})


def prepare(database: str, *, version: int = 2) -> None:
    engine = open_engine(ledger_url(database)).execution_options(write=True)
    with engine.connect() as connection, connection.begin():
        have_to_itself(connection)
        make_old(connection, version)
        fill_old(connection)
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path / "ledger.sqlite")
    else:
        with postgresql_database() as database:
            yield database


def test_old_ledger_keeps_all_that_it_had(database: str) -> None:
    prepare(database)
    waits = DeletionRequest("waits", DATA_PROTECTION_OFFICER, Records(references(1500)))

    with Ledger(database, clock=lambda: NOON + timedelta(days=1)) as ledger:
        done, waiting = ledger.status("done"), ledger.status("waits")
        assert (done.state, waiting.state) == (RequestState.COMPLETED, RequestState.DISPATCHED)
        assert done.request.target == Subject(bytes(32))
        assert waiting.request == waits
        assert waiting.due_at == NOON + timedelta(days=30)
        assert [part.state for part in waiting.sites] == [SiteState.ERASED, SiteState.PENDING]
        assert [(site.name, site.orders, site.pending) for site in ledger.sites()] == [
            ("hospital-1", 2, 0),
            ("hospital-2", 2, 1),
        ]
        assert [move.after for move in ledger.history("waits")] == ["dispatched"]
        # The same request is recognised by what it asks for, another one under its id is not taken for it.
        assert ledger.enter(waits) == waiting
        with pytest.raises(DeletionExists):
            ledger.enter(DeletionRequest("done", DATA_PROTECTION_OFFICER, Subject(bytes(31) + b"x")))
        assert [
            part.number for part in ledger.enter(DeletionRequest("next", "hospital-2", Subject(bytes(32)))).sites
        ] == [3]
        ledger.remove("hospital-2")
        ledger.register("hospital-2")


@pytest.mark.parametrize("version", [1, 3, 99])
def test_ledger_of_a_version_that_is_not_known_is_left_alone(tmp_path: Path, version: int) -> None:
    database = str(tmp_path / "ledger.sqlite")
    prepare(database, version=version)

    # Version 3 never was: its number is that of a revision, which such a ledger does not have.
    with pytest.raises(InvalidSetting, match="schema version"):
        Ledger(database)

    engine = open_engine(ledger_url(database))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT max(version) FROM ledger_schema")) == version
        assert connection.scalar(text("SELECT count(*) FROM sites")) == 2
    engine.dispose()


def test_migration_that_fails_leaves_the_old_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = str(tmp_path / "ledger.sqlite")
    prepare(database)
    with monkeypatch.context() as patched:
        patched.setattr("hashlib.sha256", fail)
        with pytest.raises(RuntimeError, match="the power failed"):
            Ledger(database)

    with Ledger(database) as ledger:
        assert ledger.status("done").state is RequestState.COMPLETED


def fail(*_: object) -> None:
    raise RuntimeError("the power failed")


def test_migrations_make_the_tables_that_the_program_describes(database: str) -> None:
    with Ledger(database) as ledger, ledger._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        differences = compare_metadata(context, Base.metadata)

    assert differences == []


def test_last_migration_is_the_one_that_the_program_knows() -> None:
    assert ScriptDirectory.from_config(configuration()).get_current_head() == SCHEMA_REVISION
