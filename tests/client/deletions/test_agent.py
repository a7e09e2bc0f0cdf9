"""Hearing deletion orders: before a round, and all the time; from a service that fails as it is told."""

from __future__ import annotations

import errno
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

import pytest

from fedmunkey.client.deletions.agent import DeletionAgent, catch_up, catch_up_patiently
from fedmunkey.client.key_store import AppliedOrders, KeyStore
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.deletions.words import Acknowledgement, DeletionOrder, DeletionRequest, RequestStatus, SiteState
from fedmunkey.common.errors import InvalidDeletion, KeyStoreError, NotAllowed, ServiceUnavailable
from fedmunkey.common.service import waiting
from fedmunkey.common.service.deletion_service import DeletionService, StatusPage
from tests.client.conftest import Fill, Order, Reopen
from tests.patience import PATIENCE

RunAgent = Callable[..., SimpleQueue[int]]


def longest(_low: float, high: float) -> float:
    """Draw pauses that can be foretold."""
    return high


class FakeService(DeletionService):
    """A stream of orders; calls fail while `failures` says so."""

    def __init__(self, *orders: DeletionOrder) -> None:
        self.orders = list(orders)
        self.answers: dict[int, Acknowledgement] = {}
        self.failures: dict[str, int] = {}
        self.refused: set[int] = set()
        self.refusals: list[int] = []
        self.calls: list[list[int]] = []
        self.watched: list[int] = []
        self._arrived: SimpleQueue[DeletionOrder | None] = SimpleQueue()

    def send(self, order: DeletionOrder) -> None:
        self.orders.append(order)
        self._arrived.put(order)

    def lose_connection(self) -> None:
        self._arrived.put(None)

    def watch(self, site: str, after: int, *, follow: bool = False, chain: bytes = b"") -> Iterator[DeletionOrder]:
        del chain
        self._fail("watch")
        self.watched.append(after)
        yield from [order for order in self.orders if order.site == site and order.number > after]
        while follow:
            order = self._arrived.get(timeout=PATIENCE)
            if order is None:
                raise ServiceUnavailable("the connection is lost")
            # A real service would not send again what came with the backlog.
            if order.number > after:
                yield order

    def acknowledge(self, acknowledgement: Acknowledgement) -> None:
        self._fail("acknowledge")
        if acknowledgement.number in self.refused:
            self.refusals.append(acknowledgement.number)
            raise InvalidDeletion("an answer cannot be changed")
        assert self.answers.setdefault(acknowledgement.number, acknowledgement) == acknowledgement

    def acknowledge_all(self, acknowledgements: Sequence[Acknowledgement]) -> None:
        self.calls.append([answer.number for answer in acknowledgements])
        super().acknowledge_all(acknowledgements)

    def submit(self, request: DeletionRequest) -> RequestStatus:
        raise NotImplementedError

    def get(self, request_id: str) -> RequestStatus:
        raise NotImplementedError

    def page(self, page: str = "", size: int = 100, *, late: bool = False) -> StatusPage:
        raise NotImplementedError

    def open_round(self, number: int) -> int:
        raise NotImplementedError

    def _fail(self, call: str) -> None:
        if self.failures.get(call, 0) > 0:
            self.failures[call] -= 1
            raise ServiceUnavailable("the deletion service cannot be reached")


@pytest.fixture
def held(store: KeyStore, fill: Fill) -> KeyStore:
    """A store with six entries."""
    fill(store, range(6))
    return store


# Catching up.


def test_outstanding_orders_are_applied_and_acknowledged(held: KeyStore, order: Order) -> None:
    service = FakeService(order(1, 0), order(2, 100), order(3, 1, 2))

    applied = catch_up(held, service)

    assert [answer.state for answer in applied] == [SiteState.ERASED, SiteState.NOTHING_HELD, SiteState.ERASED]
    assert list(service.answers.values()) == applied
    assert held.records.count(Split.TRAIN) == 3
    assert held.orders.read_unacknowledged() == []


def test_only_what_follows_the_last_order_is_asked_for(held: KeyStore, order: Order) -> None:
    service = FakeService(order(1, 0))
    catch_up(held, service)
    service.send(order(2, 1))

    assert [answer.number for answer in catch_up(held, service)] == [2]
    assert catch_up(held, service) == []
    assert service.watched == [0, 1, 2]


def test_answers_that_were_not_given_are_given_before_the_next_order(held: KeyStore, order: Order) -> None:
    service = FakeService(order(1, 0), order(2, 1))
    service.failures["acknowledge"] = 1

    with pytest.raises(ServiceUnavailable):
        catch_up(held, service)
    assert held.orders.last == 2
    assert service.answers == {}

    service.send(order(3, 2))
    assert [answer.number for answer in catch_up(held, service)] == [3]
    assert list(service.answers) == [1, 2, 3]
    assert service.answers[1].records == 1


def test_backlog_is_one_transaction_and_one_call(held: KeyStore, order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    applied: list[int] = []
    apply_all = AppliedOrders.apply_all

    def count(self: AppliedOrders, orders: Sequence[DeletionOrder], *rest: Any) -> list[Acknowledgement]:
        applied.append(len(orders))
        return apply_all(self, orders, *rest)

    monkeypatch.setattr(AppliedOrders, "apply_all", count)
    service = FakeService(*(order(number, number - 1) for number in range(1, 6)))

    assert [answer.number for answer in catch_up(held, service)] == [1, 2, 3, 4, 5]

    assert applied == [5]
    assert service.calls == [[1, 2, 3, 4, 5]]
    assert held.orders.read_unacknowledged() == []


def test_order_at_fault_keeps_none_before_it_from_being_carried_out_or_answered(held: KeyStore, order: Order) -> None:
    other = sqlite3.connect(held.path)
    raised = "WHEN NEW.number = 3 BEGIN SELECT RAISE(ABORT, 'a fault of order 3'); END"
    other.execute(f"CREATE TRIGGER fault AFTER INSERT ON applied_orders {raised}")
    service = FakeService(*(order(number, number - 1) for number in range(1, 6)))

    with pytest.raises(sqlite3.IntegrityError, match="a fault of order 3"):
        catch_up(held, service)

    assert held.orders.last == 2
    assert sorted(service.answers) == [1, 2]

    other.execute("DROP TRIGGER fault")
    other.close()
    assert [answer.number for answer in catch_up(held, service)] == [3, 4, 5]


def test_answer_is_given_again_after_a_crash(held: KeyStore, order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    class CrashError(Exception): ...

    def crash(*_: object) -> None:
        raise CrashError

    service = FakeService(order(1, 0))
    with monkeypatch.context() as patched:
        patched.setattr(AppliedOrders, "mark_acknowledged", crash)
        with pytest.raises(CrashError):
            catch_up(held, service)
    assert list(service.answers) == [1]

    catch_up(held, service)

    assert held.orders.read_unacknowledged() == []


def test_service_is_waited_for_and_named(held: KeyStore, order: Order, caplog: pytest.LogCaptureFixture) -> None:
    service = FakeService(order(1, 0))
    service.failures["watch"] = 2
    waits: list[float] = []

    with caplog.at_level(logging.WARNING):
        applied = catch_up_patiently(held, service, patience=60, wait=waits.append, draw=longest)

    assert len(applied) == 1
    assert waits == [0.25, 0.5]
    assert [record.getMessage() for record in caplog.records] == [
        f"the deletion service cannot be reached; no training until it answers (waited {waited} of 60 s)"
        for waited in (0, 0)
    ]


def test_patience_ends(held: KeyStore, order: Order) -> None:
    service = FakeService(order(1, 0))
    service.failures["watch"] = 1000
    waits: list[float] = []

    with pytest.raises(ServiceUnavailable, match="cannot be reached"):
        catch_up_patiently(held, service, patience=2, wait=waits.append, draw=longest)

    assert sum(waits) == 2
    assert held.orders.last == 0


def test_refused_answer_keeps_no_other_deletion_from_being_carried_out_and_is_given_again(
    held: KeyStore, order: Order, caplog: pytest.LogCaptureFixture
) -> None:
    service = FakeService(order(1, 0), order(2, 1), order(3, 2))
    service.refused = {2}

    assert [answer.number for answer in catch_up(held, service)] == [1, 2, 3]

    assert held.records.count(Split.TRAIN) == 3
    assert sorted(service.answers) == [1, 3]
    assert [answer.number for answer in held.orders.read_unacknowledged()] == [2]
    # Once with the others, then by itself.
    assert service.refusals == [2, 2]
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("order 2 was answered, but the service refuses the answer: an answer cannot be changed")

    service.refused = set()
    catch_up(held, service)

    assert sorted(service.answers) == [1, 2, 3]
    assert held.orders.read_unacknowledged() == []


# The agent.


@pytest.fixture
def run_agent(held: KeyStore, reopen: Reopen, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunAgent]:
    """Return a function that starts an agent, and gives the numbers of the orders that it has carried out."""
    monkeypatch.setattr(waiting, "_FIRST_PAUSE", 0.001)
    stop, started = threading.Event(), list[tuple[threading.Thread, FakeService]]()

    def run(service: FakeService) -> SimpleQueue[int]:
        done: SimpleQueue[int] = SimpleQueue()
        agent = DeletionAgent(reopen(held), service, on_order=lambda answer: done.put(answer.number))
        thread = threading.Thread(target=agent.run, args=(stop,))
        thread.start()
        started.append((thread, service))
        return done

    yield run
    stop.set()
    # Agents of one service share what arrives: whichever takes the first word must leave one for the other.
    for _, service in started:
        service.lose_connection()
    for thread, _ in started:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_agent_comes_back(held: KeyStore, order: Order, run_agent: RunAgent, caplog: pytest.LogCaptureFixture) -> None:
    service = FakeService(order(1, 0))
    service.failures = {"watch": 1, "acknowledge": 1}
    done = run_agent(service)

    service.send(order(2, 1))
    service.lose_connection()
    service.send(order(3, 2))

    while done.get(timeout=PATIENCE) != 3:
        pass
    assert sorted(service.answers) == [1, 2, 3]
    assert held.records.count(Split.TRAIN) == 3
    assert any("trying again in 0.0 s" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        ("apply_all", KeyStoreError("another process keeps reading the key store")),
        ("mark_acknowledged", OSError(errno.ENOSPC, "No space left on device")),
        ("mark_acknowledged", sqlite3.OperationalError("locked")),
    ],
)
def test_agent_tries_again_where_the_store_is_busy_or_locked_or_the_disk_is_full(
    held: KeyStore,
    order: Order,
    run_agent: RunAgent,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    fault: Exception,
) -> None:
    usual, faults = getattr(AppliedOrders, method), iter([fault])

    def fail_once(*words: Any) -> Any:
        for error in faults:
            raise error
        return usual(*words)

    monkeypatch.setattr(AppliedOrders, method, fail_once)
    service = FakeService(order(1, 0))
    done = run_agent(service)
    service.send(order(2, 1))

    while done.get(timeout=PATIENCE) != 2:
        pass
    assert held.orders.read_unacknowledged() == []


def test_agent_goes_on_when_the_service_refuses_an_answer(held: KeyStore, order: Order, run_agent: RunAgent) -> None:
    service = FakeService(order(1, 0))
    service.refused = {1}
    done = run_agent(service)
    assert done.get(timeout=PATIENCE) == 1

    service.send(order(2, 1))

    assert done.get(timeout=PATIENCE) == 2
    assert sorted(service.answers) == [2]
    assert service.refusals == [1]
    assert [answer.number for answer in held.orders.read_unacknowledged()] == [1]


def test_two_agents_on_one_store_apply_each_order_once(held: KeyStore, order: Order, run_agent: RunAgent) -> None:
    service = FakeService(*(order(number, number - 1) for number in range(1, 6)))

    run_agent(service)
    run_agent(service)
    # Whoever comes second may find nothing left to do.
    deadline = time.monotonic() + PATIENCE
    while len(service.answers) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)

    # A generation for each deletion: an order that was applied twice would have taken one more.
    assert (held.generation, held.orders.last, held.records.count(Split.TRAIN)) == (5, 5, 1)
    assert sorted(service.answers) == [1, 2, 3, 4, 5]
    assert all(answer.records == 1 for answer in service.answers.values())


def test_agent_stops_cleanly_while_it_waits_for_the_service(
    held: KeyStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stop = threading.Event()
    service = FakeService()
    service.failures["watch"] = 1000

    def wait(_seconds: float) -> bool:
        if service.failures["watch"] <= 995:
            stop.set()
        return True

    monkeypatch.setattr(stop, "wait", wait)
    DeletionAgent(held, service).run(stop)

    assert service.failures["watch"] == 995
    assert len(caplog.records) == 5


def test_agent_waits_longer_until_an_order_came(held: KeyStore, order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, waits = threading.Event(), list[float]()
    service = FakeService()
    service.failures["watch"] = 3

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            service.send(order(1, 0))
            service.lose_connection()
        elif len(waits) == 5:
            stop.set()
        elif len(waits) == 4:
            service.failures["watch"] = 1

    monkeypatch.setattr(stop, "wait", wait)
    DeletionAgent(held, service, draw=longest).run(stop)

    assert waits == [0.25, 0.5, 1.0, 0.25, 0.5]


def test_revoked_site_says_so_once_and_hears_orders_when_it_is_taken_again(
    held: KeyStore, order: Order, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stop, waits = threading.Event(), list[float]()

    class Refusing(FakeService):
        def watch(self, site: str, after: int, *, follow: bool = False, chain: bytes = b"") -> Iterator[DeletionOrder]:
            if len(waits) < 5:
                raise NotAllowed("the certificate of site hospital-1 was revoked")
            return super().watch(site, after, follow=follow, chain=chain)

    service = Refusing()

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 5:
            service.send(order(1, 0))
            service.lose_connection()
        elif len(waits) == 6:
            stop.set()

    monkeypatch.setattr(stop, "wait", wait)
    DeletionAgent(held, service, draw=longest).run(stop)

    errors = [record.message for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert errors[0].startswith("the coordinator refuses this site: the certificate of site hospital-1 was revoked; ")
    assert service.answers.keys() == {1}


def test_stopped_agent_does_not_complain_of_the_connection(held: KeyStore, caplog: pytest.LogCaptureFixture) -> None:
    stop = threading.Event()

    class Stopping(FakeService):
        def watch(self, site: str, after: int, *, follow: bool = False, chain: bytes = b"") -> Iterator[DeletionOrder]:
            stop.set()
            return super().watch(site, after, follow=follow, chain=chain)

    service = Stopping()
    service.lose_connection()
    DeletionAgent(held, service).run(stop)

    assert caplog.records == []
