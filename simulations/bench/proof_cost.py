"""What proofs cost: signing, checking and logging at a site, and proofs in a large log."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np

from fedmunkey.client.deletions.site_proofs import SiteProofs
from fedmunkey.client.key_store import KeyStore
from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import OFFICER, DeletionOrder, DeletionRequest, Subject
from fedmunkey.common.proofs.log_heads import LogUpdate
from fedmunkey.common.proofs.merkle import check_consistency, check_inclusion
from fedmunkey.common.proofs.signed_requests import sign_request
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys
from fedmunkey.server.deletions.coordinator_proofs import CoordinatorProofs
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.transparency_log.leaves import Leaf, LeafKind
from fedmunkey.server.transparency_log.log import TransparencyLog
from fedmunkey.simulations.bench.figure import Bench, Figure, Group, Measured, at_most, below
from fedmunkey.simulations.bench.synthetic_store import SITE, SyntheticStore, subject_name

_AT_A_SITE = Figure(
    "proofs-at-a-site",
    "checking a signed request, signing and keeping its receipt and checking the log, for each deletion",
    "ms",
    at_most(2.0),
)
_IN_THE_LOG = Figure(
    "proof-in-the-log", "inclusion proof in a log of 1,000,000 leaves, slowest of those measured", "ms", below(10.0)
)
_BLOCK = 50_000


def _measure(bench: Bench) -> Iterator[Measured]:
    with bench.folder() as folder:
        yield _at_a_site(bench, folder)
        yield _in_the_log(bench, folder)


class _Timed:
    """A deletion service's log, with the seconds that the coordinator took to show it."""

    def __init__(self, service: LedgerService) -> None:
        self.seconds = 0.0
        self._show = service.log_update

    def __call__(self, seen_size: int, leaves: Sequence[bytes] = ()) -> LogUpdate | None:
        start = time.perf_counter()
        update = self._show(seen_size, leaves)
        self.seconds += time.perf_counter() - start
        return update


def _at_a_site(bench: Bench, folder: Path) -> Measured:
    """Answer orders at a site with keys and at one without; the coordinator's time is taken off."""
    count = 10 if bench.quick else 300
    seconds = np.empty((count, 2))
    federation = _Federation()
    with ExitStack() as stack:
        service = stack.enter_context(federation.coordinator(folder))
        shown = _Timed(service)
        service.log_update = shown  # type: ignore[method-assign]
        sites = [
            stack.enter_context(federation.open_site(folder / name, keys=name == "keys")) for name in ("keys", "none")
        ]
        proofs = [SiteProofs(site) for site in sites]
        with bench.progress.counting("answering orders", count) as progress:
            for number in range(1, count + 1):
                service.submit(federation.request(number))
                order = next(iter(service.watch(SITE, number - 1)))
                for place, (store, site) in enumerate(zip(sites, proofs, strict=True)):
                    seconds[number - 1, place] = _answer(site, order, service, shown, acknowledge=place == 0)
                    store.orders.mark_acknowledged(number)
                progress(1)
    extra = 1000 * (seconds[:, 0] - seconds[:, 1])
    note = f"median of {count} orders, beside a site without keys; without the network and the coordinator's time"
    return bench.result(_AT_A_SITE, float(np.median(extra)), note, p95=float(np.quantile(extra, 0.95)))


def _answer(
    site: SiteProofs, order: DeletionOrder, service: LedgerService, shown: _Timed, *, acknowledge: bool
) -> float:
    """Return the seconds that a site takes to answer an order and to look at the log afterwards."""
    start = time.perf_counter()
    answer = site.carry_out(order)
    seconds = time.perf_counter() - start
    if acknowledge:
        service.acknowledge(answer)
    shown.seconds = 0.0
    start = time.perf_counter()
    if not site.witness(service):
        raise AssertionError("the log is honest")
    return seconds + time.perf_counter() - start - shown.seconds


@dataclass(frozen=True)
class _Federation:
    """The keys of a federation with one site."""

    officer: SigningKey = field(default_factory=SigningKey.generate)
    site: SigningKey = field(default_factory=SigningKey.generate)
    log: SigningKey = field(default_factory=SigningKey.generate)
    secret: FederationSecret = field(default_factory=FederationSecret.generate)

    @property
    def trust(self) -> TrustedKeys:
        """Whose signatures are trusted."""
        keys = (("officer", Role.OFFICER, self.officer), (SITE, Role.SITE, self.site), ("log", Role.LOG, self.log))
        return TrustedKeys(tuple(TrustedKey(name, role, key.public) for name, role, key in keys))

    @contextmanager
    def coordinator(self, folder: Path) -> Iterator[LedgerService]:
        """Open a deletion service with a log, whose files lie in a folder."""
        self.trust.write(folder / "trust.json")
        with Ledger(folder / "ledger.sqlite") as ledger:
            ledger.register(SITE)
            proofs = CoordinatorProofs(TransparencyLog(ledger.engine, self.log), folder / "trust.json")
            with closing(LedgerService(ledger, proofs=proofs)) as service:
                yield service

    def open_site(self, folder: Path, *, keys: bool) -> KeyStore:
        """Make an empty site, with what it needs to check requests and to sign receipts, or without."""
        folder.mkdir()
        if keys:
            self.site.write(folder / "site-key.pem")
            self.secret.write(folder / "federation.secret")
            self.trust.write(folder / "trust.json")
        return KeyStore.create(folder / "keystore.sqlite", SyntheticStore.of_patches(0, key_size=16).description)

    def request(self, number: int) -> DeletionRequest:
        """Return a signed request of the officer for one subject."""
        target = Subject(self.secret.reference(subject_name(number)))
        request = DeletionRequest(f"request-{number}", OFFICER, target)
        issued = utc_now()
        expires = issued + timedelta(days=90)
        return sign_request(request, self.officer, self.secret.federation_id, issued=issued, expires=expires)


def _in_the_log(bench: Bench, folder: Path) -> Measured:
    """Prove and check leaves of a large log, and that it extends earlier states of itself."""
    size, proofs = (2_000, 20) if bench.quick else (1_000_000, 500)
    draws = random.Random(size)  # noqa: S311 (which leaves are proved)
    with Ledger(folder / "log.sqlite") as ledger:
        log = TransparencyLog(ledger.engine, SigningKey.generate())
        with bench.progress.counting("filling the log", size) as progress:
            for first in range(0, size, _BLOCK):
                numbers = range(first, min(first + _BLOCK, size))
                log.extend([Leaf(LeafKind.RECEIPT, f"site/{number}", b"leaf %d" % number) for number in numbers])
                progress(len(numbers))
        earlier_sizes = [draws.randrange(1, size) for _ in range(proofs)]
        roots = {number: log.root(number) for number in (size, *earlier_sizes)}
        seconds = np.empty((proofs, 2))
        for turn, earlier in enumerate(earlier_sizes):
            number = draws.randrange(size)
            start = time.perf_counter()
            proof = log.prove(number, size)
            middle = time.perf_counter()
            extension = log.prove_extension(earlier, size)
            seconds[turn] = middle - start, time.perf_counter() - middle
            check_inclusion(log.leaf_hash(number), number, size, proof.path, roots[size])
            check_consistency(earlier, roots[earlier], size, roots[size], extension)
    slowest, median = 1000 * seconds.max(axis=0), 1000 * np.median(seconds, axis=0)
    note = f"{proofs} random leaves of {size:,}; median {median[0]:.2f} ms; SQLite, warm"
    details = {"median": float(median[0]), "slowest_consistency": float(slowest[1]), "leaves": size}
    return bench.result(_IN_THE_LOG, float(slowest[0]), note, **details)


GROUP = Group("proofs", (_AT_A_SITE, _IN_THE_LOG), _measure)
