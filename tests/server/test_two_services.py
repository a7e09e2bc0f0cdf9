"""Two services on one database: each serves what the other one writes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fedmunkey.common.deletions.words import OFFICER, DeletionOrder, DeletionRequest, RequestState, Subject, WholeSite
from fedmunkey.common.programs.supervision import own_program
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.server.deletions import upkeep
from fedmunkey.server.deletions.ledger_service import LedgerService, News
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.deletions.presence import Presence
from fedmunkey.server.deletions.upkeep import Upkeep
from fedmunkey.server.ledger.ledger import Ledger
from tests.followers import Follower
from tests.patience import PATIENCE
from tests.processes import Running
from tests.server.ledger.ledger_contract import ANSWER, NOON, Clock

SITES = ("hospital-1", "hospital-2")


@dataclass(frozen=True)
class Served:
    ledger: Ledger
    channel: DeletionChannel


@pytest.fixture
def services(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Served, Served]]:
    """Two servers with a ledger each. On PostgreSQL they hear of each other only by what is announced."""
    monkeypatch.setattr(upkeep, "POLL_SECONDS", 10 * PATIENCE if database.startswith("postgresql") else 0.05)
    with ExitStack() as stack:

        def serve() -> Served:
            ledger = stack.enter_context(Ledger(database))
            for site in SITES:
                ledger.register(site)
            server = stack.enter_context(DeletionServer(LedgerService(ledger)))
            return Served(ledger, stack.enter_context(DeletionChannel(server.address, timeout=PATIENCE)))

        yield serve(), serve()


def test_site_at_one_service_hears_of_a_request_at_the_other(services: tuple[Served, Served]) -> None:
    here, there = services
    follower = Follower(there.channel.watch("hospital-1", 0, follow=True))
    first = DeletionRequest("first", "hospital-1", WholeSite("hospital-1"))
    second = DeletionRequest("second", OFFICER, Subject(bytes(32)))
    there.channel.submit(first)
    assert follower.next() == DeletionOrder(1, "hospital-1", first)

    here.channel.submit(second)

    assert follower.next() == DeletionOrder(2, "hospital-1", second)
    there.channel.close()
    follower.join()


def test_site_that_leaves_is_told_at_the_other_service(services: tuple[Served, Served]) -> None:
    here, there = services
    follower = Follower(there.channel.watch("hospital-2", 0, follow=True))
    there.channel.submit(DeletionRequest("first", "hospital-2", WholeSite("hospital-2")))
    assert isinstance(follower.next(), DeletionOrder)

    here.ledger.remove("hospital-2", "it has closed")

    assert "hospital-2' has left the federation" in str(follower.next())
    follower.join()
    assert here.channel.get("first").state is RequestState.PARTIAL


def test_orders_of_both_are_numbered_without_gaps(services: tuple[Served, Served]) -> None:
    def submit(number: int) -> None:
        request = DeletionRequest(f"request-{number}", OFFICER, Subject(bytes(32)))
        services[number % 2].channel.submit(request)
        # The other service knows it, and neither writes it twice.
        services[(number + 1) % 2].channel.submit(request)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(submit, range(30)))

    for site in SITES:
        orders = list(services[0].channel.watch(site, 0))
        assert [order.number for order in orders] == list(range(1, 31))
        assert len({order.request.request_id for order in orders}) == 30
    pages = services[1].channel.page(size=30)
    assert len({status.request.request_id for status in pages.statuses}) == 30


def test_last_two_answers_at_two_services_complete_the_request(services: tuple[Served, Served]) -> None:
    for number in range(1, 11):
        services[0].channel.submit(DeletionRequest(f"r{number}", OFFICER, Subject(bytes(32))))

    def give(place: int) -> None:
        for number in range(1, 11):
            answer = replace(ANSWER, number=number, site=SITES[place], request_id=f"r{number}")
            services[place].channel.acknowledge(answer)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(give, (0, 1)))

    assert {status.state for status in services[0].channel.requests()} == {RequestState.COMPLETED}


class TestUpkeep:
    def test_only_changed_sites_are_woken(self, ledger: Ledger) -> None:
        service = LedgerService(ledger)
        keeping = Upkeep(service, Presence(ledger), clock=lambda: 0.0)
        heard: list[News] = []
        ledger.enter(DeletionRequest("first", "hospital-1", WholeSite("hospital-1")))

        with service.listening(heard.append):
            keeping.look()
            keeping.look()
            ledger.remove("hospital-2")
            keeping.look()

        assert heard == [News({"hospital-1": 1}, left=frozenset()), News({}, left=frozenset({"hospital-2"}))]

    def test_late_requests_are_found_once_a_minute(self, ledger: Ledger, clock: Clock) -> None:
        seconds = 0.0
        keeping = Upkeep(LedgerService(ledger), Presence(ledger), clock=lambda: seconds)
        keeping.look()
        ledger.enter(DeletionRequest("first", "hospital-1", WholeSite("hospital-1")))
        clock.time += timedelta(days=40)

        keeping.look()
        before = [move.after for move in ledger.history("first")]
        seconds = upkeep.OVERDUE_SECONDS
        keeping.look()

        assert before[-1] == "dispatched"
        assert ledger.history("first")[-1].after == "overdue"

    def test_connection_is_renewed_while_it_lasts_and_runs_out_by_itself(self, ledger: Ledger, clock: Clock) -> None:
        seconds = 0.0
        presence = Presence(ledger)
        keeping = Upkeep(LedgerService(ledger), presence, clock=lambda: seconds)

        def connected() -> list[str]:
            return [site.name for site in ledger.sites() if site.connected]

        presence.connect("hospital-1")
        presence.connect("hospital-1")
        presence.disconnect("hospital-1")
        keeping.look()
        ledger.mark_overdue()
        assert connected() == ["hospital-1"]
        for _ in range(5):
            clock.time += timedelta(seconds=9)
            seconds += 10
            keeping.look()
            ledger.mark_overdue()
            assert connected() == ["hospital-1"]
        clock.time += timedelta(minutes=1)
        assert connected() == []
        presence.disconnect("hospital-1")
        keeping.look()
        ledger.mark_overdue()
        seen = ledger.sites()[0].seen_at
        assert isinstance(seen, datetime)
        assert seen > NOON + timedelta(minutes=1)
        assert ledger.sites()[1].seen_at is None


# Services as they are deployed: processes, of which one is killed.


class Process(Running):
    """`munkey-server serve` in a process of its own."""

    def __init__(self, database: str, log_key: Path) -> None:
        words = ["serve", "--database", database, "--log-key", str(log_key), "--address", "127.0.0.1:0"]
        words += [word for site in SITES for word in ("--site", site)]
        super().__init__(own_program("fedmunkey.server.cli", *words), log_key.parent)
        address = self.expect("deletion service at ").split("deletion service at ")[1].partition(",")[0].strip()
        self.channel = DeletionChannel(address, timeout=PATIENCE)

    def __exit__(self, *_: object) -> None:
        self.channel.close()
        self.kill()


@pytest.mark.processes
def test_process_goes_on_with_what_a_killed_one_has_written(database: str, tmp_path: Path) -> None:
    key = tmp_path / "log-key.pem"
    requests = [DeletionRequest(f"request-{n}", OFFICER, Subject(bytes(32))) for n in range(3)]
    with Process(database, key) as first, Process(database, key) as second:
        follower = Follower(second.channel.watch(SITES[0], 0, follow=True))
        first.channel.submit(requests[0])
        assert follower.next() == DeletionOrder(1, SITES[0], requests[0])

        entered = first.channel.submit(requests[1])
        first.kill()
        # Whoever asked the one that is gone asks the other, and is asking once.
        again = second.channel.submit(requests[1])
        second.channel.submit(requests[2])

        assert [site.number for site in again.sites] == [site.number for site in entered.sites] == [2, 2]
        assert [follower.next() for _ in range(2)] == [
            DeletionOrder(number, SITES[0], requests[number - 1]) for number in (2, 3)
        ]
        for number in (1, 2, 3):
            for site in SITES:
                answer = replace(ANSWER, number=number, site=site, request_id=f"request-{number - 1}")
                second.channel.acknowledge(answer)
        with Process(database, key) as third:
            assert [status.state for status in third.channel.requests()] == [RequestState.COMPLETED] * 3
            assert third.channel.log_update(0) == second.channel.log_update(0)
        second.channel.close()
        follower.join()
