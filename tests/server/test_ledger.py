"""The ledger keeps what it was given, all or nothing."""

from __future__ import annotations

import math
import sqlite3
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import SQLAlchemyError

from common.deletion import (
    DATA_PROTECTION_OFFICER,
    Acknowledgement,
    DeletionRequest,
    Records,
    SiteState,
    Subject,
    WholeSite,
)
from common.errors import InvalidDeletion, InvalidSetting, ServiceUnavailable
from common.guarantees import Guarantee, PrivacyLoss
from server import ledger as ledger_module
from server.ledger import SCHEMA_VERSION, DeletionConflict, DeletionExists, Ledger, UnknownDeletion

NOON = datetime(2030, 5, 17, 12, tzinfo=UTC)
REQUEST = DeletionRequest("request-1", DATA_PROTECTION_OFFICER, Subject(bytes(range(32))))
ANSWER = Acknowledgement(1, "hospital-1", "request-1", SiteState.ERASED, 3, 2, Guarantee.EMPIRICAL, 0.25)
CERTIFIED = replace(
    ANSWER,
    guarantee=Guarantee.CERTIFIED,
    record_loss=PrivacyLoss(1.9, 1e-5),
    subject_loss=PrivacyLoss(4.1, 2e-5, 2),
)


class Clock:
    """Shows a time one second later each time."""

    def __init__(self) -> None:
        self.time = NOON

    def __call__(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "coordinator" / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger(path, clock=Clock()) as ledger:
        for site in ("hospital-1", "hospital-2"):
            ledger.register(site)
        yield ledger


def references(count: int) -> frozenset[bytes]:
    return frozenset(number.to_bytes(32, "big") for number in range(count))


def test_everything_is_there_after_a_restart(path: Path, ledger: Ledger) -> None:
    ledger.enter(REQUEST, ["hospital-1", "hospital-2"])
    ledger.acknowledge(ANSWER)
    ledger.open_round(3)
    before = (ledger.sites(), ledger.status("request-1"), ledger.page(), ledger.rounds(), ledger.pending())
    ledger.close()

    with Ledger(path) as again:
        after = (again.sites(), again.status("request-1"), again.page(), again.rounds(), again.pending())

    assert after == before
    assert before[4] == 1


def test_answer_and_times_are_kept(ledger: Ledger) -> None:
    submitted = ledger.enter(REQUEST, ["hospital-1"])

    ledger.acknowledge(ANSWER)

    status = ledger.status("request-1")
    assert submitted.submitted_at == NOON + timedelta(seconds=3)
    assert status.sites[0].acknowledgement == ANSWER
    assert status.sites[0].acknowledged_at == NOON + timedelta(seconds=4)
    assert status.seconds == 1.0


@pytest.mark.parametrize(
    "target", [Records(references(2500), "hospital-1"), Records(references(1)), REQUEST.target, WholeSite("hospital-1")]
)
def test_request_comes_back_as_it_was_entered(ledger: Ledger, target: Records | Subject | WholeSite) -> None:
    request = DeletionRequest("request-1", DATA_PROTECTION_OFFICER, target)

    ledger.enter(request, ["hospital-1"])

    assert ledger.status("request-1").request == request
    order = ledger.order("hospital-1", 1)
    assert order is not None
    assert order.request == request


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request_id=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=200))
def test_request_ids_are_kept_letter_by_letter(ledger: Ledger, request_id: str) -> None:
    request = replace(REQUEST, request_id=request_id)

    assert ledger.enter(request, ["hospital-1"]).request == request
    assert ledger.status(request_id).request == request


def test_request_to_an_unregistered_site_leaves_nothing_behind(ledger: Ledger) -> None:
    with pytest.raises(UnknownDeletion, match="hospital-9"):
        ledger.enter(REQUEST, ["hospital-1", "hospital-9"])

    assert ledger.page().statuses == ()
    assert ledger.last_number("hospital-1") == 0


def test_failure_between_request_and_orders_leaves_nothing_behind(ledger: Ledger) -> None:
    with ledger._engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON orders BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
        )

    with pytest.raises(ServiceUnavailable, match="disk is full"):
        ledger.enter(REQUEST, ["hospital-1"])

    assert ledger.page().statuses == ()


def test_same_request_again_writes_nothing(ledger: Ledger) -> None:
    first = ledger.enter(REQUEST, ["hospital-1"])

    assert ledger.enter(REQUEST, ["hospital-1", "hospital-2"]) == first
    assert ledger.last_number("hospital-2") == 0


def test_other_request_under_the_same_id_is_refused(ledger: Ledger) -> None:
    ledger.enter(REQUEST, ["hospital-1"])

    with pytest.raises(DeletionExists, match="request-1"):
        ledger.enter(replace(REQUEST, target=WholeSite("hospital-1")), ["hospital-1"])


def test_two_ledgers_on_one_file_number_orders_without_gaps(path: Path, ledger: Ledger) -> None:
    with Ledger(path) as other, ThreadPoolExecutor(8) as pool:

        def enter(number: int) -> None:
            (ledger, other)[number % 2].enter(replace(REQUEST, request_id=f"request-{number}"), ["hospital-1"])

        list(pool.map(enter, range(40)))

    orders = [ledger.order("hospital-1", number) for number in range(1, 41)]
    assert {order.request.request_id for order in orders if order} == {f"request-{number}" for number in range(40)}
    assert ledger.order("hospital-1", 41) is None


def test_site_that_joins_later_gets_no_older_orders(ledger: Ledger) -> None:
    ledger.enter(REQUEST, ["hospital-1", "hospital-2"])

    ledger.register("hospital-3")
    ledger.register("hospital-3")

    assert [(site.name, site.orders, site.pending) for site in ledger.sites()] == [
        ("hospital-1", 1, 1),
        ("hospital-2", 1, 1),
        ("hospital-3", 0, 0),
    ]
    assert ledger.site_names() == ("hospital-1", "hospital-2", "hospital-3")


@pytest.mark.parametrize("name", ["", " hospital", "two\nlines", "x" * 101, DATA_PROTECTION_OFFICER])
def test_name_that_no_site_can_have_is_refused(ledger: Ledger, name: str) -> None:
    with pytest.raises(InvalidDeletion, match="cannot be a site's name"):
        ledger.register(name)


def test_answer_that_differs_is_refused(ledger: Ledger) -> None:
    ledger.enter(REQUEST, ["hospital-1"])
    ledger.acknowledge(ANSWER)

    for change in ({"records": 4}, {"entries": 1}, {"guarantee": Guarantee.EXACT}, {"reason": "late"}):
        with pytest.raises(DeletionConflict, match="cannot be changed"):
            ledger.acknowledge(replace(ANSWER, **change))

    assert ledger.status("request-1").sites[0].acknowledgement == ANSWER


@pytest.mark.parametrize("epsilon", [0.0, 4.1, math.inf])
def test_what_a_certified_answer_leaves_is_kept(path: Path, ledger: Ledger, epsilon: float) -> None:
    answer = replace(CERTIFIED, subject_loss=PrivacyLoss(epsilon, 2e-5, 2))
    ledger.enter(REQUEST, ["hospital-1"])
    ledger.acknowledge(answer)
    ledger.acknowledge(replace(answer, seconds=9.0))
    ledger.close()

    with Ledger(path) as again:
        assert again.status("request-1").sites[0].acknowledgement == answer


@pytest.mark.parametrize(
    "change",
    [
        {"record_loss": PrivacyLoss(1.8, 1e-5)},
        {"record_loss": PrivacyLoss(1.9, 1e-6)},
        {"subject_loss": PrivacyLoss(math.inf, 2e-5, 2)},
        {"subject_loss": PrivacyLoss(4.1, 1e-5, 2)},
        {"subject_loss": PrivacyLoss(4.1, 2e-5, 3)},
        {"guarantee": Guarantee.EXACT, "record_loss": None, "subject_loss": None},
    ],
)
def test_answer_that_leaves_something_else_is_refused(ledger: Ledger, change: dict[str, Any]) -> None:
    ledger.enter(REQUEST, ["hospital-1"])
    ledger.acknowledge(CERTIFIED)

    with pytest.raises(DeletionConflict, match="cannot be changed"):
        ledger.acknowledge(replace(CERTIFIED, **change))

    assert ledger.status("request-1").sites[0].acknowledgement == CERTIFIED


def test_answer_to_another_request_is_refused(ledger: Ledger) -> None:
    ledger.enter(REQUEST, ["hospital-1"])

    with pytest.raises(UnknownDeletion, match="no order 1 for request 'request-2'"):
        ledger.acknowledge(replace(ANSWER, request_id="request-2"))


def test_page_ends_before_it_names_too_many_records(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "MAXIMUM_REFERENCES", 5)
    for number, count in enumerate((3, 2, 9, 1)):
        request = DeletionRequest(f"request-{number}", DATA_PROTECTION_OFFICER, Records(references(count)))
        ledger.enter(request, ["hospital-1"])

    pages, page = [], ledger.page()
    while page.next_page:
        pages.append(page)
        page = ledger.page(page.next_page)
    sizes = [[status.request.request_id for status in page.statuses] for page in [*pages, page]]

    assert sizes == [["request-0", "request-1"], ["request-2"], ["request-3"]]


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


def test_ledger_of_another_version_is_refused(path: Path, ledger: Ledger) -> None:
    ledger.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE ledger_schema SET version = 99")

    with pytest.raises(InvalidSetting, match=f"schema version 99, this program reads {SCHEMA_VERSION}"):
        Ledger(path)


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


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "unknown://host/name", "://"])
def test_database_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(InvalidSetting):
        Ledger(url)


def test_password_in_a_url_is_not_shown() -> None:
    with pytest.raises(InvalidSetting) as caught:
        Ledger("unknown://user:secret@host/name")

    assert "secret" not in str(caught.value)


def test_ledger_may_be_named_by_a_url(path: Path, ledger: Ledger) -> None:
    ledger.enter(REQUEST, ["hospital-1"])

    with Ledger(f"sqlite:///{path}") as again:
        assert again.status("request-1").request == REQUEST
