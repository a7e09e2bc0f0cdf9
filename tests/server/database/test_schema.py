"""A ledger of an older version is taken over with all that it had, and one of a newer version is left alone."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import DBAPIError

from fedmunkey.common.deletions.renewals import ReleasedWeights, RenewalNeed, SiteContribution
from fedmunkey.common.deletions.words import (
    OFFICER,
    Acknowledgement,
    DeletionRequest,
    Records,
    RequestState,
    SiteState,
    Subject,
)
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.privacy.guarantees import Guarantee, PrivacyLoss
from fedmunkey.server.database import schema
from fedmunkey.server.database.connection import ledger_url, open_engine
from fedmunkey.server.database.tables import Base
from fedmunkey.server.ledger.ledger import SCHEMA_REVISION, DeletionExists, Ledger
from tests.releases import give
from tests.server.ledger.ledger_contract import references

LEDGERS = Path(__file__).parent / "ledgers"
OLD_TABLES = (LEDGERS / "0005.sql").read_text()
POSTGRESQL_SPELLING = {
    "INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT": "serial PRIMARY KEY",
    "BOOLEAN DEFAULT 0": "boolean DEFAULT false",
    "DATETIME": "timestamp",
    "DOUBLE": "double precision",
    "BLOB": "bytea",
    "X'": r"'\x",
    "9e999": "'Infinity'",
}
NOON = datetime(2026, 5, 17, 12, tzinfo=UTC)
ERASED, REFUSED = SiteState.ERASED, SiteState.REFUSED
EXACT, CERTIFIED, EMPIRICAL = Guarantee
UNKNOWN = 'its key is "unknown", says Zoë'
UNBOUNDED = (PrivacyLoss(1.9, 1e-5), PrivacyLoss(math.inf, 1e-5, 2))
BOUNDED = (PrivacyLoss(0.1 + 0.2, 1e-5), PrivacyLoss(3.0, 0.0, 1))
ANSWERS = {
    (answer.site, answer.request_id): answer
    for answer in (
        Acknowledgement(1, "hospital-1", "subject", ERASED, 3, 2, CERTIFIED, 0.25, "", *UNBOUNDED),
        Acknowledgement(1, "hospital-2", "subject", REFUSED, 0, 0, EMPIRICAL, 0.5, UNKNOWN),
        Acknowledgement(1, "hospital-3", "subject", SiteState.NOTHING_HELD, 0, 0, EXACT, 1 / 3),
        Acknowledgement(2, "hospital-1", "records", ERASED, 2**40, 1, EXACT, 2.0),
        Acknowledgement(2, "hospital-2", "site", ERASED, 1, 0, CERTIFIED, 1e-7, "", *BOUNDED),
    )
}
"""What the sites of the old ledgers had answered."""


@pytest.fixture
def old(database: str) -> str:
    """A ledger of revision 0005, as that program wrote it."""
    fill(database)
    return database


@pytest.fixture(params=["0005", "0006", "0007", "0008", "0009"])
def older(request: pytest.FixtureRequest, database: str) -> str:
    """A ledger of each earlier revision; later ones are what their programs made of one of 0005."""
    fill(database)
    bring_to(request.param, database)
    return database


def bring_to(wanted: str, database: str) -> None:
    engine = open_engine(ledger_url(database))
    with engine.execution_options(write=True).connect() as connection:
        revision = "0005"
        while revision != wanted:
            revision, change = schema._STEPS[revision]
            change(connection)
            connection.execute(text("UPDATE ledger_revision SET version_num = :it"), {"it": revision})
            connection.commit()
        tables = {"releases", "contributions"} & set(inspect(connection).get_table_names())
        assert bool(tables) == (wanted >= "0007")
    engine.dispose()


def fill(database: str) -> None:
    if "://" in database:
        tables = OLD_TABLES
        for name, postgresql in POSTGRESQL_SPELLING.items():
            tables = tables.replace(name, postgresql)
        with psycopg.connect(database) as connection:
            connection.execute((tables + (LEDGERS / "0005.postgresql.sql").read_text()).encode())
    else:
        with closing(sqlite3.connect(database)) as connection:
            connection.executescript(OLD_TABLES + (LEDGERS / "0005.sqlite.sql").read_text())


def test_old_ledger_keeps_all_that_it_had(older: str) -> None:
    with Ledger(older, clock=lambda: NOON + timedelta(days=1)) as ledger:
        statuses = {status.request.request_id: status for status in ledger.page().statuses}
        given = [
            (part.acknowledgement, part.reason, part.state, part.acknowledged_at)
            for status in statuses.values()
            for part in status.sites
            if part.acknowledgement
        ]

        assert {(answer.site, answer.request_id): answer for answer, *_ in given if answer} == ANSWERS
        assert all(answer.reason == reason and answer.state is state for answer, reason, state, _ in given if answer)
        assert [at for *_, at in given] == [NOON + timedelta(seconds=seconds) for seconds in (9, 10, 11, 12, 13)]
        receipts = [answer.receipt for answer, *_ in given if answer]
        assert receipts == [b"", b"", b"", b"{signed}", b""]
        assert {name: status.state for name, status in statuses.items()} == {
            "subject": RequestState.PARTIAL,
            "records": RequestState.COMPLETED,
            "site": RequestState.COMPLETED,
            "waits": RequestState.DISPATCHED,
        }
        assert statuses["waits"].request == DeletionRequest("waits", OFFICER, Records(references(4)))
        assert statuses["waits"].due_at == NOON + timedelta(days=40, seconds=7)
        assert statuses["waits"].extension == "holidays"
        assert [(site.name, site.orders, site.pending) for site in ledger.sites()] == [
            ("hospital-1", 3, 1),
            ("hospital-2", 3, 1),
            ("hospital-3", 2, 0),
        ]
        moves = [move.after for move in ledger.history("site")]
        assert moves == ["received", "verified", "dispatched", "erased", "completed"]


def test_taken_over_ledger_goes_on_as_before(older: str) -> None:
    with Ledger(older, clock=lambda: NOON + timedelta(days=1)) as ledger:
        waits = ledger.status("waits")

        # The same request is recognised by what it asks for, another one under its id is not taken for it.
        assert ledger.enter(waits.request) == waits
        with pytest.raises(DeletionExists):
            ledger.enter(DeletionRequest("waits", OFFICER, Subject(bytes(32))))
        for answer in ANSWERS.values():
            if answer.site != "hospital-3":
                ledger.acknowledge(answer)
        ledger.register("hospital-3")
        for site in ("hospital-1", "hospital-2", "hospital-3"):
            number = ledger.last_number(site)
            ledger.acknowledge(Acknowledgement(number, site, "waits", ERASED, 1, 1, EXACT, 0.1))
        assert ledger.status("waits").state is RequestState.COMPLETED
        with pytest.raises(DBAPIError, match="never changed"), ledger.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM events")


def test_taken_over_ledger_owes_no_renewal_and_takes_releases(older: str) -> None:
    with Ledger(older, clock=lambda: NOON + timedelta(days=1)) as ledger:
        assert {status.renew_by for status in ledger.page().statuses} == {None}
        assert ledger.renewal_need() == RenewalNeed(0, None, None)

        # Order 2 of hospital-1 has erased an entry under exact, and the site took part before it had.
        give(ledger, ReleasedWeights("ab" * 32, 10, 10, (SiteContribution("hospital-1", 1, b"signed"),)))
        need = ledger.renewal_need()
        give(ledger, ReleasedWeights("cd" * 32, 9, 1, (SiteContribution("hospital-1", 2, b"signed"),)))

        assert (need.entries, need.records) == (1, 10)
        assert ledger.renewal_need() == RenewalNeed(0, None, 9)
        assert ledger.status("records").state is RequestState.COMPLETED


def test_takeover_that_is_interrupted_loses_nothing(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Acknowledgement, "to_json", fail)
        with pytest.raises(RuntimeError, match="the power failed"):
            Ledger(old)

    with Ledger(old) as ledger:
        found = [part.acknowledgement for status in ledger.page().statuses for part in status.sites]
        assert [answer for answer in found if answer] == list(ANSWERS.values())


def fail(*_: object) -> None:
    raise RuntimeError("the power failed")


@pytest.mark.parametrize("revision", ["0004", "0099"])
def test_ledger_of_a_revision_that_is_not_known_is_left_alone(old: str, revision: str) -> None:
    engine = create_engine(old.replace("postgresql:", "postgresql+psycopg:") if "://" in old else f"sqlite:///{old}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE ledger_revision SET version_num = :it"), {"it": revision})

    with pytest.raises(InvalidSetting, match=f"revision {revision}, this program knows 0005 to {SCHEMA_REVISION}"):
        Ledger(old)

    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM ledger_revision")) == revision
        assert connection.scalar(text("SELECT sum(records) FROM acknowledgements")) == 2**40 + 4
    engine.dispose()


@pytest.mark.parametrize("revision", ["", "0005", "0006", "0007", "0008", "0009"])
def test_tables_are_those_that_the_program_describes(database: str, revision: str) -> None:
    if revision:
        fill(database)
        bring_to(revision, database)
    with Ledger(database) as ledger, ledger.engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)
        found = connection.scalar(text("SELECT version_num FROM ledger_revision"))

    assert differences == []
    assert found == SCHEMA_REVISION


def test_releases_of_before_count_as_given_out(database: str) -> None:
    part = SiteContribution("hospital-1", 0, b"")
    with Ledger(database) as ledger:
        ledger.register("hospital-1")
        ledger.note_release(ReleasedWeights("ab" * 32, 10, 10, (part,)))
        with ledger.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE releases DROP COLUMN given_at")
            connection.execute(text("UPDATE ledger_revision SET version_num = '0008'"))

    with Ledger(database) as ledger:
        need = ledger.renewal_need()
        with ledger.engine.connect() as connection:
            at, given = connection.execute(text("SELECT released_at, given_at FROM releases")).one()

    assert (need.records, need.solved_at) == (10, None)
    assert at == given
