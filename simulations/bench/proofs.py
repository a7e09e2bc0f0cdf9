"""What proofs cost: signing, checking and logging at a site, proofs in a large log, and changes that are believed."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import numpy as np

from client.key_store import KeyStore, StoreDescription
from client.site_proofs import SiteProofs
from common.deletion import DeletionOrder, Subject
from common.log_heads import LogUpdate
from common.merkle import check_consistency, check_inclusion
from common.settings import ImagePath, Settings
from server.deletion_service import LedgerService
from server.ledger import Ledger
from server.log import TransparencyLog
from server.log_leaves import Leaf, LeafKind
from simulations.bench.figure import Bench, Figure, Group, Relation, Result, Target
from simulations.bench.mutations import try_mutations
from simulations.bench.proof_case import (
    LOG,
    SECRET,
    SITE_KEYS,
    SITES,
    START,
    TRUST,
    make_case,
    open_coordinator,
    signed_request,
)

_AT_A_SITE = Figure(
    "proofs-at-a-site",
    "checking a signed request, signing and keeping its receipt and checking the log, for each deletion",
    "ms",
    Target(Relation.AT_MOST, 2.0),
)
_IN_THE_LOG = Figure(
    "proof-in-the-log",
    "inclusion proof in a log of 1,000,000 leaves, slowest of those measured",
    "ms",
    Target(Relation.BELOW, 10.0),
)
_BELIEVED = Figure(
    "mutations-believed",
    "of 100,000 changed requests, receipts, heads, certificates, messages and identities: believed, or failed on",
    "",
    Target(Relation.AT_MOST, 0.0),
)
_BLOCK = 50_000


def _measure(bench: Bench) -> Iterator[Result]:
    with tempfile.TemporaryDirectory(prefix="fedmunkey-bench-") as folder:
        yield _at_a_site(bench, Path(folder))
        yield _in_the_log(bench, Path(folder))
        yield _believed(bench, Path(folder) / "case")


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


def _at_a_site(bench: Bench, folder: Path) -> Result:
    """Answer orders at a site with keys and at one without; the coordinator's time is taken off."""
    count = 10 if bench.quick else 300
    seconds = np.empty((count, 2))
    with ExitStack() as stack:
        service = open_coordinator(stack, folder)
        shown = _Timed(service)
        service.log_update = shown  # type: ignore[method-assign]
        sites = [stack.enter_context(_open_site(folder / name, keys=name == "keys")) for name in ("keys", "none")]
        proofs = [SiteProofs(site, clock=lambda: START + timedelta(days=1)) for site in sites]
        with bench.progress.counting("answering orders", count) as progress:
            for number in range(1, count + 1):
                target = Subject(SECRET.reference(f"patient-{number}"))
                service.submit(signed_request(f"request-{number}", target))
                order = next(iter(service.watch(SITES[0], number - 1)))
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


def _open_site(folder: Path, *, keys: bool) -> KeyStore:
    folder.mkdir()
    if keys:
        SITE_KEYS[SITES[0]].write(folder / "site-key.pem")
        SECRET.write(folder / "federation.secret")
        TRUST.write(folder / "trust.json")
    settings = Settings()
    description = StoreDescription(
        site=SITES[0],
        encoder="synthetic",
        key_size=16,
        image_path=ImagePath.PATCHES,
        input_shape=(1, 8, 8),
        exemplar_size=8,
        list_length=8,
        guarantee=settings.guarantee,
        epsilon=settings.epsilon,
        delta=settings.delta,
    )
    return KeyStore.create(folder / "keystore.sqlite", description)


def _in_the_log(bench: Bench, folder: Path) -> Result:
    """Prove and check leaves of a large log, and that it extends earlier states of itself."""
    size, proofs = (2_000, 20) if bench.quick else (1_000_000, 500)
    draws = random.Random(size)  # noqa: S311 (which leaves are proved)
    with Ledger(folder / "log.sqlite") as ledger:
        log = TransparencyLog(ledger.engine, LOG)
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


def _believed(bench: Bench, folder: Path) -> Result:
    folder.mkdir()
    count = 1_000 if bench.quick else 100_000
    seed = int.from_bytes(os.urandom(8), "big")
    with bench.progress.counting("changing what was signed", count) as progress:
        tally = try_mutations(make_case(folder), count, random.Random(seed), progress)  # noqa: S311 (no secret)
    bad = len(tally.believed) + len(tally.failures)
    examples = [*tally.believed[:3], *tally.failures[:3]]
    return bench.result(_BELIEVED, bad, f"{count:,} changes, seed {seed}", examples=examples)


GROUP = Group("proofs", (_AT_A_SITE, _IN_THE_LOG, _BELIEVED), _measure)
