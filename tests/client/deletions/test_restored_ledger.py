"""A ledger that was restored from a copy gives old numbers to other requests: nothing is skipped or refused."""

from __future__ import annotations

import itertools
import os
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fedmunkey.client.deletions.agent import DeletionAgent, catch_up
from fedmunkey.client.deletions.receipt_book import ReceiptBook
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.key_store.on_disk.restoration import restore
from fedmunkey.client.records.dataset import Dataset, Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import DeletionOrder, DeletionRequest, SiteState, Subject
from fedmunkey.common.errors import DeletionConflict, ServiceUnavailable
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.transparency_log.log import TransparencyLog
from fedmunkey.server.transparency_log.restating import enter_restored, state_restored
from tests.client.conftest import subject_id
from tests.followers import Follower
from tests.patience import PATIENCE
from tests.proof_case import LOG, OFFICER_KEY, SECRET, SITE_KEYS, SITES, START, TRUST, open_coordinator, signed_request

SITE = SITES[0]
NOW = START + timedelta(days=1)
RECORDS = 120
ERASED = SiteState.ERASED


@pytest.fixture
def secret() -> FederationSecret:
    """The fixtures of this folder enrol with the case's secret."""
    return SECRET


class Coordinator:
    """A deletion service whose ledger is copied and put back."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._open = ExitStack()
        self._ticks = itertools.count()
        self.service = open_coordinator(self._open, folder, self._clock)

    def copy(self, name: str) -> None:
        with (
            closing(sqlite3.connect(self._folder / "ledger.sqlite")) as ledger,
            closing(sqlite3.connect(self._folder / name)) as copy,
        ):
            ledger.backup(copy)

    def put_back(self, name: str) -> None:
        self.close()
        for file in self._folder.glob("ledger.sqlite*"):
            file.unlink()
        (self._folder / "ledger.sqlite").write_bytes((self._folder / name).read_bytes())
        self.service = open_coordinator(self._open, self._folder, self._clock)

    def put_back_in_place(self, name: str) -> None:
        """Put a copy into the database that the service has open, as into one of PostgreSQL."""
        with (
            closing(sqlite3.connect(self._folder / "ledger.sqlite")) as ledger,
            closing(sqlite3.connect(self._folder / name)) as copy,
        ):
            copy.backup(ledger)

    def _clock(self) -> datetime:
        return START + timedelta(microseconds=next(self._ticks))

    def ask(self, *requests: DeletionRequest) -> None:
        for request in requests:
            self.service.submit(request)

    def states(self) -> dict[str, tuple[SiteState, int]]:
        """Return by request what the site has answered, and how many records it says that it erased."""
        found = {}
        for status in self.service.requests():
            (part,) = [progress for progress in status.sites if progress.site == SITE]
            found[status.request.request_id] = (part.state, part.acknowledgement.records if part.acknowledgement else 0)
        return found

    def close(self) -> None:
        self._open.close()


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    with closing(Coordinator(tmp_path / "coordinator")) as made:
        yield made


@pytest.fixture
def site(store: KeyStore, fill: Callable[..., Dataset]) -> KeyStore:
    fill(store, range(RECORDS))
    folder = SiteFolder(store.path.parent)
    SITE_KEYS[SITE].write(folder.signing_key)
    SECRET.write(folder.secret)
    TRUST.write(folder.trust)
    return store


def request(number: int, time: int = 0) -> DeletionRequest:
    """Return the request for a subject; it is signed another time for each time."""
    issued = START - timedelta(seconds=time)
    return signed_request(f"request-{number}", Subject(SECRET.reference(subject_id(number))), issued=issued)


def hear(site: KeyStore, service: LedgerService | DeletionChannel) -> list[int]:
    return [answer.number for answer in catch_up(site, service, clock=lambda: NOW)]


def test_neither_the_lost_nor_the_other_order_is_skipped_or_refused(site: KeyStore, coordinator: Coordinator) -> None:
    coordinator.ask(request(1))
    hear(site, coordinator.service)
    coordinator.copy("copy")
    coordinator.ask(request(2), request(3))
    hear(site, coordinator.service)

    coordinator.put_back("copy")
    coordinator.ask(request(4), request(3))

    # Order 3 is what it was.
    assert hear(site, coordinator.service) == [2]
    assert site.records.count(Split.TRAIN) == RECORDS - 4
    assert coordinator.states() == {f"request-{number}": (ERASED, 1) for number in (1, 4, 3)}
    coordinator.ask(request(2))
    assert hear(site, coordinator.service) == [4]
    assert coordinator.states()["request-2"] == (ERASED, 1)
    assert hear(site, coordinator.service) == []
    assert site.orders.unacknowledged() == []


def test_order_between_equal_ones_is_not_skipped(site: KeyStore, coordinator: Coordinator) -> None:
    coordinator.copy("copy")
    coordinator.ask(request(1), request(2))
    hear(site, coordinator.service)

    coordinator.put_back("copy")
    coordinator.ask(request(3), request(2))

    assert hear(site, coordinator.service) == [1]
    assert site.records.count(Split.TRAIN) == RECORDS - 3


def test_answers_that_the_ledger_lost_are_given_again(site: KeyStore, coordinator: Coordinator) -> None:
    coordinator.ask(request(1), request(2))
    coordinator.copy("copy")
    hear(site, coordinator.service)
    coordinator.ask(request(3))
    hear(site, coordinator.service)
    coordinator.put_back("copy")

    assert hear(site, coordinator.service) == []

    assert coordinator.states() == {f"request-{number}": (ERASED, 1) for number in (1, 2)}
    assert site.orders.last == 2


def test_ledger_says_that_it_has_other_orders(site: KeyStore, coordinator: Coordinator) -> None:
    coordinator.ask(request(1), request(2))
    hear(site, coordinator.service)
    chain = site.orders.chain()
    assert chain

    assert list(coordinator.service.watch(SITE, 2, chain=chain)) == []
    with pytest.raises(DeletionConflict, match="restored from a copy"):
        coordinator.service.watch(SITE, 1, chain=chain)


def test_ledger_that_goes_back_under_a_running_service_skips_no_order(site: KeyStore, coordinator: Coordinator) -> None:
    coordinator.copy("copy")
    coordinator.ask(request(1), request(2))
    hear(site, coordinator.service)
    # The service has followed the site up to here, and remembers the digests of its orders.
    assert hear(site, coordinator.service) == []

    coordinator.put_back_in_place("copy")
    coordinator.ask(request(3), request(2), request(1))

    hear(site, coordinator.service)
    assert site.records.count(Split.TRAIN) == RECORDS - 3
    assert coordinator.states() == {f"request-{number}": (ERASED, 1) for number in (1, 2, 3)}
    # It goes by the new orders' digests, or an agent would never find its place again.
    chain = site.orders.chain() or b""
    assert list(coordinator.service.watch(SITE, site.orders.last, chain=chain)) == []


def test_stream_ends_when_the_ledger_goes_back(site: KeyStore, coordinator: Coordinator) -> None:
    coordinator.copy("copy")
    coordinator.ask(request(1), request(2))
    hear(site, coordinator.service)

    with DeletionServer(coordinator.service) as server, DeletionChannel(server.address) as channel:
        follower = Follower(channel.watch(SITE, 2, follow=True, chain=site.orders.chain() or b""))
        coordinator.ask(request(3))
        assert isinstance(follower.next(), DeletionOrder)
        coordinator.put_back_in_place("copy")
        coordinator.ask(*map(request, range(4, 8)))

        # Order 4 may come first; the three before it come once the site connects again, so that has to be soon.
        said = [follower.next()]
        if isinstance(said[-1], DeletionOrder):
            said.append(follower.next())
        assert isinstance(said[-1], ServiceUnavailable)
        follower.join()


def test_nothing_is_written_to_a_file_that_was_replaced(coordinator: Coordinator, tmp_path: Path) -> None:
    coordinator.copy("copy")
    ledger = tmp_path / "coordinator" / "ledger.sqlite"
    ledger.unlink()
    ledger.write_bytes((tmp_path / "coordinator" / "copy").read_bytes())

    with pytest.raises(ServiceUnavailable, match="was replaced while it was open"):
        coordinator.ask(request(1))
    with pytest.raises(ServiceUnavailable, match="was replaced"):
        coordinator.states()


def hear_over_the_network(site: KeyStore, service: LedgerService, orders: int) -> None:
    """Let an agent run beside a server until it has carried out some orders."""
    heard, stop = threading.Semaphore(0), threading.Event()
    with (
        DeletionServer(service) as server,
        DeletionChannel(server.address) as channel,
        KeyStore.open(site.path) as same,
    ):
        agent = DeletionAgent(same, channel, on_order=lambda _: heard.release())
        thread = threading.Thread(target=agent.run, args=(stop,))
        thread.start()
        try:
            for _ in range(orders):
                assert heard.acquire(timeout=PATIENCE)
        finally:
            stop.set()
            channel.close()
            thread.join()


def test_agent_finds_its_place_again_over_the_network(site: KeyStore, coordinator: Coordinator) -> None:
    coordinator.copy("copy")
    coordinator.ask(request(1), request(2))
    hear(site, coordinator.service)
    coordinator.put_back("copy")
    coordinator.ask(request(2), request(1))

    # By the agent's clock both have expired long ago.
    hear_over_the_network(site, coordinator.service, orders=2)

    assert coordinator.states() == {f"request-{number}": (ERASED, 1) for number in (1, 2)}


def test_agent_follows_a_restored_log_without_a_false_alarm(site: KeyStore, coordinator: Coordinator) -> None:
    """It looks at the log before it hears that the ledger has other orders."""
    coordinator.ask(request(1))
    hear(site, coordinator.service)
    coordinator.copy("copy")
    coordinator.ask(request(2), request(3))
    hear(site, coordinator.service)
    coordinator.put_back("copy")
    log = TransparencyLog(coordinator.service.ledger.engine, LOG)
    said = state_restored(log, LOG, "the disk failed", None, NOW + timedelta(hours=1)).countersign(OFFICER_KEY)
    enter_restored(log, LOG, said, TRUST)
    coordinator.ask(request(3))

    hear_over_the_network(site, coordinator.service, orders=1)
    hear(site, coordinator.service)

    (note,) = [alarm.fault for alarm in ReceiptBook(site.journal).alarms()]
    assert "restored from a copy of 2 leaves" in note
    assert site.journal.query("SELECT count(*) FROM receipts WHERE included = 0") == [(0,)]
    assert [found.request_id for found in coordinator.service.ledger.summary().lost] == ["request-2"]


class Model:
    """What the ledger has, what it has lost, and what the site must have forgotten; all by the subjects' numbers."""

    def __init__(self, seed: int, site: KeyStore, coordinator: Coordinator, folder: Path) -> None:
        self.draw = random.Random(seed)
        self._fresh = iter(range(RECORDS))
        self._site = site
        self._coordinator = coordinator
        self._folder = folder
        self._requests: dict[int, DeletionRequest] = {}
        self._in_ledger: list[int] = []
        self._copies: list[tuple[str, list[int]]] = []
        self._backups: list[Path] = []
        self._heard: set[int] = set()

    def ask(self, *numbers: int) -> None:
        """Ask for subjects; what the ledger has lost is sometimes signed anew."""
        for number in numbers:
            if self.draw.random() < 0.3:
                self._requests[number] = request(number, self.draw.randrange(3600))
            self._coordinator.ask(self._requests.setdefault(number, request(number)))
            self._in_ledger.append(number)

    def ask_anew(self) -> None:
        self.ask(*(next(self._fresh) for _ in range(self.draw.randint(0, 2))))

    def check(self) -> None:
        """Let the site hear, and compare."""
        hear(self._site, self._coordinator.service)
        self._heard.update(self._in_ledger)
        assert self._coordinator.states() == {f"request-{number}": (ERASED, 1) for number in self._in_ledger}
        assert self._site.records.count(Split.TRAIN) == RECORDS - len(self._heard)
        assert self._site.orders.last == len(self._in_ledger)
        assert self._site.orders.unacknowledged() == []

    def copy(self) -> None:
        name = f"copy-{len(self._copies)}"
        self._coordinator.copy(name)
        self._copies.append((name, list(self._in_ledger)))

    def put_back(self) -> None:
        """Put a copy in the ledger's place, and ask for some of what it lost in another order."""
        if self._copies:
            name, held = self.draw.choice(self._copies)
            self._coordinator.put_back(name)
            self._in_ledger = list(held)
            lost = self.lost()
            self.ask(*lost[: self.draw.randint(0, len(lost))])

    def lost(self) -> list[int]:
        found = [number for number in self._requests if number not in self._in_ledger]
        self.draw.shuffle(found)
        return found

    def back_up(self) -> None:
        self._backups.append(self._folder / f"backup-{len(self._backups)}")
        if self._site.is_restored:
            self.check()
        self._site.back_up(self._backups[-1], NOW)

    def restore(self) -> None:
        """Put a backup in the key store's place."""
        if self._backups:
            path = self._site.path
            self._site.close()
            restore(self.draw.choice(self._backups), path)
            self._site = KeyStore.open(path)

    def close(self) -> None:
        self._site.close()


@pytest.mark.parametrize("seed", range(int(os.environ.get("MUNKEY_MODELS", "4"))))
def test_restored_ledgers_against_a_plain_model(
    site: KeyStore, coordinator: Coordinator, tmp_path: Path, seed: int
) -> None:
    """Twelve times each, the ledger goes back to a copy, and what it lost is asked for again in another order."""
    with closing(Model(seed, site, coordinator, tmp_path)) as model:
        for _ in range(12):
            for _ in range(model.draw.randint(1, 3)):
                model.ask_anew()
                for step, chance in ((model.check, 0.6), (model.copy, 0.5), (model.back_up, 0.2)):
                    if model.draw.random() < chance:
                        step()
            model.put_back()
            if model.draw.random() < 0.3:
                model.restore()
        model.ask(*model.lost())
        model.check()
