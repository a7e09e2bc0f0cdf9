"""What waits is written together, and nobody suffers for another's fault."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

from fedmunkey.common.deletions.words import DeletionRequest, RequestStatus, WholeSite
from fedmunkey.common.errors import InvalidDeletion, ServiceUnavailable
from fedmunkey.server.ledger.ledger import DeletionExists, Ledger
from fedmunkey.server.ledger.writer import Event, Transaction
from tests.patience import PATIENCE
from tests.server.ledger.ledger_contract import own_site


@pytest.fixture
def busy(ledger: Ledger) -> Iterator[threading.Event]:
    """The writer is busy until this is set, so that what is submitted meanwhile waits for it together."""
    begun, go_on = threading.Event(), threading.Event()

    def wait(_transaction: Transaction, items: Sequence[None]) -> list[None]:
        begun.set()
        go_on.wait(PATIENCE)
        return [None] * len(items)

    ledger._writer.submit(wait, None)
    begun.wait(PATIENCE)
    yield go_on
    go_on.set()


def test_what_waits_is_written_in_one_transaction(ledger: Ledger, busy: threading.Event) -> None:
    written: list[int] = []
    ledger.listen(lambda events: written.append(len(events)))
    futures = [ledger.enter_soon(own_site(f"request-{number}")) for number in range(20)]

    busy.set()

    assert [future.result(PATIENCE).sites[0].number for future in futures] == list(range(1, 21))
    assert [count for count in written if count] == [20 * 3]


def test_refused_request_does_not_take_others_with_it(ledger: Ledger, busy: threading.Event) -> None:
    first = ledger.enter_soon(own_site("request-1"))
    same = ledger.enter_soon(own_site("request-1"))
    stranger = ledger.enter_soon(DeletionRequest("request-2", "hospital-9", WholeSite("hospital-9")))
    taken = ledger.enter_soon(own_site("request-2"))

    busy.set()

    assert same.result(PATIENCE) == first.result(PATIENCE)
    with pytest.raises(InvalidDeletion, match="may not ask"):
        stranger.result(PATIENCE)
    assert taken.result(PATIENCE).sites[0].number == 2


def test_two_requests_under_one_id_at_once_are_told_apart(ledger: Ledger, busy: threading.Event) -> None:
    first = ledger.enter_soon(own_site("request-1"), ["hospital-1"])
    other = ledger.enter_soon(DeletionRequest("request-1", "somebody", WholeSite("hospital-1")), ["hospital-1"])

    busy.set()

    assert first.result(PATIENCE).request == own_site("request-1")
    with pytest.raises(DeletionExists):
        other.result(PATIENCE)


def test_fault_in_one_write_leaves_the_others_written(ledger: Ledger, busy: threading.Event) -> None:
    def fail(transaction: Transaction, _items: Sequence[None]) -> list[None]:
        transaction.record(Event(transaction.at, None, "hospital-1", "", "half-written"))
        transaction.flush()
        raise RuntimeError("a fault")

    before = ledger.enter_soon(own_site("request-1"))
    fault: Future[None] = ledger._writer.submit(fail, None)
    after = ledger.enter_soon(own_site("request-2"))

    busy.set()

    assert [future.result(PATIENCE).sites[0].number for future in (before, after)] == [1, 2]
    with pytest.raises(RuntimeError, match="a fault"):
        fault.result(PATIENCE)
    with ledger._engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM events WHERE after = 'half-written'").scalar() == 0


def test_nobody_is_answered_before_the_disk_has_it(ledger: Ledger, tmp_path: Path) -> None:
    seen: list[str] = []

    def look(_: Future[RequestStatus]) -> None:
        with Ledger(tmp_path / "ledger.sqlite") as other:
            seen.append(other.status("request-1").state.value)

    future = ledger.enter_soon(own_site("request-1"))
    future.add_done_callback(look)
    future.result(PATIENCE)
    ledger.close()

    assert seen == ["dispatched"]


def test_closing_writes_what_waits_and_takes_no_more(ledger: Ledger, busy: threading.Event, tmp_path: Path) -> None:
    future = ledger.enter_soon(own_site("request-1"))
    closing = threading.Thread(target=ledger.close)
    closing.start()
    busy.set()
    closing.join(PATIENCE)

    assert future.done()
    with pytest.raises(ServiceUnavailable, match="is closed"):
        ledger.enter(own_site("request-2"))
    with Ledger(tmp_path / "ledger.sqlite") as again:
        assert again.status("request-1") == future.result()
