"""The deletion service as it is deployed: members over mutual TLS, signed requests and receipts, and its restarts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import numpy as np

from fedmunkey.client.membership.joining import join
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import OFFICER, DeletionRequest, Subject
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.identities import MemberRole
from fedmunkey.common.identities.invitation import Invitation
from fedmunkey.common.programs.supervision import own_program
from fedmunkey.common.proofs.signed_requests import sign_request
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys
from fedmunkey.server.deletions.coordinator_proofs import CoordinatorProofs
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.server.members.member_journal import MemberJournal
from fedmunkey.server.members.register import MemberRegister
from fedmunkey.server.transparency_log.log import TransparencyLog
from fedmunkey.server.transparency_log.log_key import open_log_key
from fedmunkey.simulations.bench.figure import Bench, Figure, Group, Measured, at_least, at_most
from fedmunkey.simulations.bench.measured_process import measured_process
from fedmunkey.simulations.bench.member_clients import Member, MemberSites
from fedmunkey.simulations.bench.memory import resident_memory
from fedmunkey.simulations.bench.postgresql import postgresql_schema
from fedmunkey.simulations.bench.service_clients import Sites
from fedmunkey.simulations.bench.synthetic_store import SITE, SyntheticStore, subject_name
from fedmunkey.simulations.programs.free_ports import HOST, free_ports

_MEDIAN = Figure(
    "members-median",
    "1,000 sites, mutual TLS, signed receipts: from Submit to the last receipt, median of 20 requests",
    "s",
    at_most(1.0),
)
_TAIL = Figure("members-p99", "the same: 99th percentile", "s", at_most(2.0))
_MEMORY = Figure("members-memory", "the same: memory of the service", "MiB")
_RESTART = Figure(
    "members-restart", "the same: the service is ended and started again; until the last receipt for a new request", "s"
)
_KILLED = Figure(
    "members-one-of-two",
    "two services on one ledger share them, and one is killed: until the last receipt for a new request",
    "s",
)
_KILLED_POSTGRESQL = Figure(
    "members-one-of-two-postgresql",
    "the same, and the ledger is on PostgreSQL",
    "s",
)
_DRAIN = Figure(
    "members-drain",
    "10,000 signed requests queued for a site: orders that its agent carries out and signs in a second",
    "1/s",
    at_least(1000.0),
)

_REQUESTS = 20
_PATIENCE_SECONDS = 600.0
_LOOK_SECONDS = 0.05
_WRITERS = 32


@dataclass
class _Federation:
    """A coordinator's folder, who is a member of it, and the keys that are trusted."""

    folder: Path
    database: str = ""
    secret: FederationSecret = field(default_factory=FederationSecret.generate)
    services: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.coordinator = CoordinatorFolder(self.folder / "coordinator")
        self.authority = self.coordinator.create("benchmark", [HOST])
        if self.database:
            self.coordinator.note_ledger(self.database)
        self.officer = Member.make(self.authority, MemberRole.OFFICER, "officer-1")
        self.sites: list[Member] = []
        self.asked = 0
        self.joining = ""

    @property
    def trust(self) -> TrustedKeys:
        """Whose signatures a site trusts."""
        return TrustedKeys((TrustedKey("officer-1", Role.OFFICER, self.officer.key.public),))

    def admit(self, names: Sequence[str], count: Callable[[int], None]) -> None:
        """Make sites with these names, and enter them and the officer where the coordinator knows its members."""
        with Ledger(self.coordinator.ledger) as ledger:
            register = MemberRegister(ledger.engine, journal=MemberJournal(self.coordinator.members))
            register.adopt(self.officer.certificate)
            for name in names:
                site = Member.make(self.authority, MemberRole.SITE, name)
                register.adopt(site.certificate)
                ledger.register(name)
                self.sites.append(site)
                count(1)
        keys = [TrustedKey(site.name, Role.SITE, site.key.public) for site in self.sites]
        TrustedKeys((*self.trust.keys, *keys)).write(self.coordinator.trust)

    @contextmanager
    def service(self, address: str, *, joining: str | None = None) -> Iterator[int]:
        """Run a deletion service while the context lasts; give its process id."""
        words = ["serve", "--coordinator-dir", str(self.coordinator.path), "--address", address]
        if joining is not None:
            words += ["--joining-address", joining]
        log = self.folder / f"service-{len(self.services)}.log"
        self.services.append(address)
        with measured_process(own_program("fedmunkey.server.cli", *words), log) as (process, _):
            yield process

    def request(self) -> DeletionRequest:
        """Return the officer's next request, for one subject at every site."""
        name, self.asked = subject_name(self.asked), self.asked + 1
        return self.signed(DeletionRequest(f"request-{self.asked}", OFFICER, Subject(self.secret.reference(name))))

    def signed(self, request: DeletionRequest) -> DeletionRequest:
        """Return a request with the officer's signature."""
        issued = utc_now()
        return sign_request(
            request, self.officer.key, self.secret.federation_id, issued=issued, expires=issued + timedelta(days=90)
        )


def _measure(bench: Bench) -> Iterator[Measured]:
    names = [f"site-{number:04d}" for number in range(20 if bench.quick else 1000)]
    with bench.folder() as folder:
        federation = _Federation(folder)
        with bench.progress.counting("members", len(names)) as count:
            federation.admit(names, count)
        yield from _measure_sites(bench, federation)
    yield _measure_postgresql(bench, names)
    with bench.folder() as folder:
        yield _measure_drain(bench, folder)


def _measure_sites(bench: Bench, federation: _Federation) -> Iterator[Measured]:
    first, second = (f"{HOST}:{port}" for port in free_ports(2))
    with bench.progress.counting("connecting sites", 2 * len(federation.sites)) as count:
        seconds, memory, restart = asyncio.run(_restarted(federation, first, count))
        killed = asyncio.run(_one_of_two(federation, [first, second], count))
    note = f"{len(federation.sites)} sites, each with its certificate and key, on the same machine as the service"
    yield bench.result(_MEDIAN, float(np.median(seconds)), note, seconds=seconds)
    yield bench.result(_TAIL, float(np.quantile(seconds, 0.99)), f"slowest {max(seconds):.2f} s")
    yield bench.result(_MEMORY, memory / 2**20)
    yield bench.result(_RESTART, restart, "its start and every handshake included")
    yield bench.result(_KILLED, killed, "half of the sites were connected to it")


def _measure_postgresql(bench: Bench, names: Sequence[str]) -> Measured:
    """Have two services share one PostgreSQL, and kill one of them."""
    try:
        with bench.folder() as folder, postgresql_schema() as database:
            federation = _Federation(folder, database)
            addresses = [f"{HOST}:{port}" for port in free_ports(2)]
            with bench.progress.counting("members on PostgreSQL", 2 * len(names)) as count:
                federation.admit(names, count)
                killed = asyncio.run(_one_of_two(federation, addresses, count))
            return bench.result(_KILLED_POSTGRESQL, killed, "half of the sites were connected to it")
    except InvalidSetting as fault:
        return Measured.missing(_KILLED_POSTGRESQL, str(fault))


async def _ask(federation: _Federation, sites: Sites, addresses: Sequence[str]) -> float:
    """Submit a request and wait until every site has answered; return the seconds."""
    answers, request, start = sites.answered + len(federation.sites), federation.request(), time.perf_counter()
    await federation.officer.submit(addresses, request)
    await sites.wait(answers)
    return time.perf_counter() - start


async def _restarted(
    federation: _Federation, address: str, count: Callable[[int], None]
) -> tuple[list[float], int, float]:
    """Ask all sites several times, and once more while the service is started again."""
    followers = MemberSites(federation.sites, [address], federation.trust, federation.secret.federation_id)
    running = ExitStack()
    with running:
        process = running.enter_context(federation.service(address))
        await federation.officer.submit([address], federation.request())
        async with followers.connected(count) as sites:
            await sites.wait(len(federation.sites))
            seconds = [await _ask(federation, sites, [address]) for _ in range(_REQUESTS)]
            memory = resident_memory(process)
            start = time.perf_counter()
            await asyncio.to_thread(running.close)
            await asyncio.to_thread(running.enter_context, federation.service(address))
            await _ask(federation, sites, [address])
            return seconds, memory, time.perf_counter() - start


async def _one_of_two(federation: _Federation, addresses: Sequence[str], count: Callable[[int], None]) -> float:
    """Ask all sites once one of the two services that they are connected to has been killed."""
    followers = MemberSites(federation.sites, addresses, federation.trust, federation.secret.federation_id)
    with federation.service(addresses[0]), ExitStack() as second:
        second.enter_context(federation.service(addresses[1]))
        await federation.officer.submit(addresses, federation.request())
        async with followers.connected(count) as sites:
            await sites.wait(len(federation.sites))
            start = time.perf_counter()
            await asyncio.to_thread(second.close)
            await _ask(federation, sites, addresses[:1])
            return time.perf_counter() - start


def _measure_drain(bench: Bench, folder: Path) -> Measured:
    """Queue requests for a site that is off; then its agent starts, erases a record for each, and signs."""
    orders = 50 if bench.quick else 10_000
    federation = _Federation(folder)
    federation.admit([], lambda _: None)
    address, joining = (f"{HOST}:{port}" for port in free_ports(2))
    with bench.progress.counting("queue of one site", 2 * orders) as count:
        with federation.service(address, joining=joining):
            site = _joined(federation, folder / SITE, joining, orders)
        _queue(federation, orders, count)
        command = own_program("fedmunkey.client.cli", "agent", "--site-dir", str(site.path), "--service", address)
        with (
            federation.service(address),
            Ledger(federation.coordinator.ledger) as ledger,
            measured_process(command, folder / "agent.log"),
        ):
            start, left = time.perf_counter(), orders
            while left and time.perf_counter() - start < _PATIENCE_SECONDS:
                time.sleep(_LOOK_SECONDS)
                pending = ledger.pending()
                count(left - pending)
                left = pending
            seconds = time.perf_counter() - start
    note = f"{orders} orders, each of one record, in {seconds:.1f} s; {left} left pending"
    return bench.result(_DRAIN, (orders - left) / seconds, note)


def _joined(federation: _Federation, path: Path, joining: str, records: int) -> SiteFolder:
    """Return the folder of a site with records, one a subject, that has joined."""
    site = SiteFolder(path)
    path.mkdir(mode=0o700)
    federation.secret.write(site.secret)
    replace(SyntheticStore.of_patches(records, key_size=16), lists=False).write(site.key_store, federation.secret)
    with Ledger(federation.coordinator.ledger) as ledger:
        register = MemberRegister(ledger.engine, journal=MemberJournal(federation.coordinator.members))
        token = register.invite(SITE, MemberRole.SITE)
    authority = federation.authority
    join(
        Invitation(authority.federation, SITE, MemberRole.SITE, joining, authority.certificate, token),
        site.identity,
        site,
    )
    TrustedKeys.change(site.trust, lambda keys: keys.add(federation.trust.keys[0]))
    return site


def _queue(federation: _Federation, orders: int, count: Callable[[int], None]) -> None:
    """Have the officer's requests entered as the service does: no member may send so many at once."""
    folder = federation.coordinator
    with Ledger(folder.ledger) as ledger, ThreadPoolExecutor(_WRITERS) as pool:
        _, log_key = open_log_key(folder.log_key, str(folder.ledger))
        proofs = CoordinatorProofs(TransparencyLog(ledger.engine, log_key), folder.trust)
        with closing(LedgerService(ledger, proofs=proofs)) as service:
            for _ in pool.map(service.submit, (federation.request() for _ in range(orders))):
                count(1)


GROUP = Group("members", (_MEDIAN, _TAIL, _MEMORY, _RESTART, _KILLED, _KILLED_POSTGRESQL, _DRAIN), _measure)
