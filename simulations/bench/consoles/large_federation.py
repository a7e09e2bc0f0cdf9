"""A coordinator with many sites and a ledger of many requests, as some months leave it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.references import REFERENCE_BYTES, FederationSecret
from fedmunkey.common.deletions.renewals import ReleasedWeights, SiteContribution
from fedmunkey.common.deletions.words import OFFICER, DeletionRequest, Records, RequestStatus, Subject
from fedmunkey.common.identities import Identity, MemberRole
from fedmunkey.common.identities.identity import CA_FILE, CERTIFICATE_FILE, KEY_FILE, certificate_pem
from fedmunkey.common.identities.member_keys import make_key
from fedmunkey.common.private_files import replace_file
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signed_requests import OpenedRequest, sign_request
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys
from fedmunkey.server.deletions.coordinator_proofs import CoordinatorProofs
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.authority import CertificateAuthority
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.server.members.member_journal import MemberJournal
from fedmunkey.server.members.register import MemberRegister
from fedmunkey.server.rounds.run_record import RoundRecord, RunRecord
from fedmunkey.server.transparency_log.log import TransparencyLog
from fedmunkey.server.transparency_log.log_key import open_log_key
from fedmunkey.simulations.bench.member_clients import Member
from fedmunkey.simulations.bench.service_clients import erased
from fedmunkey.simulations.programs.free_ports import HOST

EVERYONE = "everyone"
"""The request that every site has answered with a signed receipt."""

OFFICER_NAME = "officer-1"

_AT_ONCE = 2000
_SPAN = timedelta(days=180)
_OPEN_SHARE = 50
"""One request in so many is still open."""

_RUNS, _ROUNDS = 5, 10


@dataclass(frozen=True)
class Size:
    """How large it is."""

    requests: int
    sites: int

    @property
    def names(self) -> list[str]:
        """The sites' names."""
        return [f"site-{number:04d}" for number in range(self.sites)]


@dataclass
class _Clock:
    """Says what time it is while the ledger is written: it begins some months ago."""

    now: datetime = field(default_factory=lambda: utc_now() - _SPAN)

    def __call__(self) -> datetime:
        return self.now


@dataclass(frozen=True)
class LargeFederation:
    """The coordinator's folder, the officer's and one site's identity, and the officer's key and secret."""

    coordinator: CoordinatorFolder
    officer: Identity
    site: Identity
    officer_key: Path
    secret: Path

    @classmethod
    def make(cls, folder: Path, size: Size, count: Callable[[int], None]) -> LargeFederation:
        """Write it into a folder that is empty; progress is counted in requests."""
        coordinator = CoordinatorFolder(folder / "coordinator")
        authority = coordinator.create("benchmark", [HOST])
        officer = _identity(authority, folder / "officer", MemberRole.OFFICER, OFFICER_NAME)
        site = _identity(authority, folder / "site", MemberRole.SITE, size.names[0])
        key, secret = SigningKey.generate(), FederationSecret.generate()
        key.write_pair(folder / "officer.pem")
        secret.write(folder / "federation.secret")
        site_keys = {name: SigningKey.generate() for name in size.names}
        _, log_key = open_log_key(coordinator.log_key, coordinator.ledger)
        TrustedKeys(
            (
                TrustedKey(OFFICER_NAME, Role.OFFICER, key.public),
                TrustedKey("coordinator", Role.LOG, log_key.public),
                *(TrustedKey(name, Role.SITE, one.public) for name, one in site_keys.items()),
            )
        ).write(coordinator.trust)
        clock = _Clock()
        with Ledger(coordinator.ledger, clock=clock) as ledger:
            _admit(coordinator, authority, ledger, size, [officer, site])
            _fill(ledger, size, clock, count)
            clock.now = utc_now() - timedelta(days=1)
            proofs = CoordinatorProofs(TransparencyLog(ledger.engine, log_key), coordinator.trust)
            with closing(LedgerService(ledger, proofs=proofs)) as service:
                _ask_everyone(service, key, site_keys, secret)
            _release(ledger, size)
        _run(coordinator.runs, size)
        return cls(coordinator, officer, site, folder / "officer.pem", folder / "federation.secret")


def _identity(authority: CertificateAuthority, folder: Path, role: MemberRole, name: str) -> Identity:
    folder.mkdir(parents=True)
    key = make_key(folder / KEY_FILE)
    made = authority.issue(key.public_key(), role, name, utc_now())
    replace_file(folder / CA_FILE, certificate_pem(authority.certificate))
    replace_file(folder / CERTIFICATE_FILE, certificate_pem(made))
    return Identity.read(folder)


def _admit(
    coordinator: CoordinatorFolder, authority: CertificateAuthority, ledger: Ledger, size: Size, known: list[Identity]
) -> None:
    """Register the sites, and enter everybody's certificate where the coordinator knows its members."""
    register = MemberRegister(ledger.engine, journal=MemberJournal(coordinator.members))
    for identity in (coordinator.read_identity(), *known):
        register.adopt(identity.certificate)
    names = {identity.name for identity in known}
    for name in size.names:
        ledger.register(name)
        if name not in names:
            register.adopt(Member.make(authority, MemberRole.SITE, name).certificate)


def _fill(ledger: Ledger, size: Size, clock: _Clock, count: Callable[[int], None]) -> None:
    """Enter requests for records of one site each, all but a few of them answered."""
    step = _SPAN / size.requests
    orders = dict.fromkeys(size.names, 0)
    for begin in range(0, size.requests, _AT_ONCE):
        written: list[Future[RequestStatus]] = []
        numbers = range(begin, min(begin + _AT_ONCE, size.requests))
        for number in numbers:
            site = size.names[number % size.sites]
            target = Records(frozenset({number.to_bytes(REFERENCE_BYTES, "big")}), site)
            written.append(ledger.enter_soon(DeletionRequest(f"request-{number}", OFFICER, target)))
        for entered in written:
            entered.result()
        answered: list[Future[None]] = []
        for number in numbers:
            site = size.names[number % size.sites]
            orders[site] += 1
            if number % _OPEN_SHARE:
                answered.append(ledger.acknowledge_soon(erased(orders[site], site, f"request-{number}")))
        for acknowledged in answered:
            acknowledged.result()
        clock.now += step * len(numbers)
        count(len(numbers))


def _ask_everyone(
    service: LedgerService, key: SigningKey, site_keys: dict[str, SigningKey], secret: FederationSecret
) -> None:
    """Have every site answer one signed request with a signed receipt."""
    issued = utc_now()
    request = DeletionRequest(EVERYONE, OFFICER, Subject(secret.reference("patient-1")))
    service.submit(sign_request(request, key, secret.federation_id, issued=issued, expires=issued + timedelta(days=90)))
    answers = []
    for name, site_key in site_keys.items():
        last = service.ledger.last_number(name)
        (order,) = service.watch(name, last - 1)
        said = erased(order.number, name, EVERYONE)
        receipt = Receipt(said, OpenedRequest.of(order.request).digest, issued, bytes(32), None)
        answers.append(replace(said, receipt=receipt.sign(site_key).to_bytes()))
    service.acknowledge_all(answers)


def _release(ledger: Ledger, size: Size) -> None:
    for number in range(_RUNS * _ROUNDS):
        parts = tuple(SiteContribution(name, ledger.last_number(name), b"") for name in size.names[:50])
        ledger.note_release(ReleasedWeights(f"{number:064x}", 10 * size.sites, 0, parts))


def _run(runs: Path, size: Size) -> None:
    for number in range(_RUNS):
        with RunRecord(runs / f"2026-{number + 1:02d}-01-run", {"guarantee": "exact"}) as record:
            for rounds in range(_ROUNDS):
                told = {name: {"test-accuracy": 0.9, "num-examples": 10.0} for name in size.names}
                digest = f"{number * _ROUNDS + rounds:064x}"
                done = RoundRecord(
                    rounds + 1, size.names, {}, told, mean={"test-accuracy": 0.9}, digest=digest, seconds=1.0
                )
                record.note_round(done, None, score=None)
            record.note_finished()
