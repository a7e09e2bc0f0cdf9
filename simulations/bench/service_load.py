"""The deletion service under load, from outside: many sites at once, a long queue, many requesters.

The service is a process of its own with an SQLite ledger, each of its transactions on disk before it is answered; the
sites and requesters are another process on the same machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import numpy as np

from fedmunkey.common.deletions.references import REFERENCE_BYTES
from fedmunkey.common.deletions.words import OFFICER, DeletionRequest, Subject
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.simulations.bench.figure import Bench, Figure, Group, Measured, at_least, at_most, below
from fedmunkey.simulations.bench.service_clients import (
    Submissions,
    connected_sites,
    erased,
    own_request,
    submit_for,
    submit_many,
)
from fedmunkey.simulations.bench.service_process import RunningService, running_service

_EVERY_SITE = Figure(
    "service-sites",
    "1,000 connected sites: from Submit to the last acknowledgement, the slowest of 5 requests",
    "s",
    at_most(3.0),
)
_DRAIN = Figure(
    "service-drain",
    "10,000 requests queued for one site: orders sent and answered in a second",
    "1/s",
    at_least(1000.0),
)
_ERRORS = Figure(
    "service-errors",
    "100 clients that send 5 requests a second each for a minute: requests that failed",
    "",
    at_most(0.0),
)
_TAIL = Figure("service-p99", "the same: 99th percentile of the time to an answer", "ms", below(100.0))
_GROWTH = Figure(
    "service-memory", "the same: memory of the service at the end, of that after a sixth of the time", "x", at_most(1.1)
)
_CAPACITY = Figure("service-capacity", "100 clients that send without pause: requests in a second", "1/s")

_REQUESTS = 5
_ANSWERS_AT_ONCE = 100
_CLIENTS = 100
_PAUSE_SECONDS = 0.2
_BUSY_SITE = "busy"


def _measure(bench: Bench) -> Iterator[Measured]:
    yield _measure_sites(bench)
    yield _measure_drain(bench)
    yield from _measure_load(bench)


def _measure_sites(bench: Bench) -> Measured:
    """Ask every site for a subject, one request after the other."""
    names = [f"site-{number:04d}" for number in range(20 if bench.quick else 1000)]
    with (
        bench.folder() as folder,
        running_service(folder, names) as service,
        bench.progress.counting("connecting sites", len(names)) as count,
    ):
        seconds = asyncio.run(_ask_everyone(service, names, count))
    note = f"{len(names)} connections; median {np.median(seconds):.2f} s; answered when on disk"
    return bench.result(_EVERY_SITE, max(seconds), note, seconds=seconds)


async def _ask_everyone(service: RunningService, names: list[str], count: Callable[[int], None]) -> list[float]:
    seconds = []
    # Each site's first order, by which it is known to be connected.
    await submit_many(service.address, [_request(0)], lambda _: None)
    async with connected_sites(service.address, names, count) as sites:
        await sites.wait(len(names))
        for number in range(1, _REQUESTS + 1):
            start = time.perf_counter()
            await submit_many(service.address, [_request(number)], lambda _: None)
            await sites.wait((number + 1) * len(names))
            seconds.append(time.perf_counter() - start)
    return seconds


def _request(number: int) -> DeletionRequest:
    reference = number.to_bytes(REFERENCE_BYTES, "big")
    return DeletionRequest(f"everyone-{number}", OFFICER, Subject(reference))


def _measure_drain(bench: Bench) -> Measured:
    """Queue requests for a site that is off; then it reads its orders and answers a hundred at a time."""
    orders = 100 if bench.quick else 10_000
    with (
        bench.folder() as folder,
        running_service(folder, [_BUSY_SITE]) as service,
        bench.progress.counting("queue of one site", 2 * orders) as count,
    ):
        queued = [own_request(f"queued-{number}", _BUSY_SITE) for number in range(orders)]
        asyncio.run(submit_many(service.address, queued, count))
        before = service.memory()
        start = time.perf_counter()
        with DeletionChannel(service.address) as channel:
            answers = []
            for order in channel.watch(_BUSY_SITE, 0):
                answers.append(erased(order.number, order.site, order.request.request_id))
                if len(answers) == _ANSWERS_AT_ONCE or order.number == orders:
                    channel.acknowledge_all(answers)
                    count(len(answers))
                    answers.clear()
            seconds = time.perf_counter() - start
            pending = channel.open_round(1)
        grown = service.memory() - before
    note = f"{orders} orders in {seconds:.1f} s, answers in calls of {_ANSWERS_AT_ONCE}; {pending} left pending"
    return bench.result(_DRAIN, (orders - pending) / seconds, note, memory_growth_bytes=grown)


def _measure_load(bench: Bench) -> Iterator[Measured]:
    """Let clients send requests for a minute at a steady pace, then for a while as fast as they are answered."""
    seconds = 1.0 if bench.quick else 60.0
    expected = int(_CLIENTS * seconds / _PAUSE_SECONDS)
    with (
        bench.folder() as folder,
        running_service(folder, [_BUSY_SITE]) as service,
        bench.progress.counting("100 clients", expected) as count,
    ):
        met, memory = asyncio.run(_load(service, seconds, count))
    with (
        bench.folder() as folder,
        running_service(folder, [_BUSY_SITE]) as service,
    ):
        most = asyncio.run(submit_for(service.address, _BUSY_SITE, _CLIENTS, seconds / 4, 0.0, lambda _: None))
    p50, p99 = np.quantile(met.seconds, (0.5, 0.99)) * 1000
    sent = f"{len(met.seconds)} requests in {seconds:.0f} s"
    yield bench.result(_ERRORS, len(met.errors), sent, first=met.errors[:1])
    yield bench.result(_TAIL, p99, f"median {p50:.1f} ms, slowest {max(met.seconds) * 1000:.0f} ms")
    early, late = memory[len(memory) // 6], memory[-1]
    yield bench.result(_GROWTH, late / early, f"{early / 2**20:.0f} to {late / 2**20:.0f} MiB", memory_bytes=memory)
    tail = np.quantile(most.seconds, 0.99) * 1000
    note = f"closed loop; 99th percentile {tail:.0f} ms, {len(most.errors)} errors"
    yield bench.result(_CAPACITY, len(most.seconds) / (seconds / 4), note)


async def _load(service: RunningService, seconds: float, count: Callable[[int], None]) -> tuple[Submissions, list[int]]:
    memory: list[int] = []

    async def look() -> None:
        while True:
            memory.append(service.memory())
            await asyncio.sleep(seconds / 30)

    looking = asyncio.create_task(look())
    met = await submit_for(service.address, _BUSY_SITE, _CLIENTS, seconds, _PAUSE_SECONDS, count)
    looking.cancel()
    memory.append(service.memory())
    return met, memory


GROUP = Group("deletion-service", (_EVERY_SITE, _DRAIN, _ERRORS, _TAIL, _GROWTH, _CAPACITY), _measure)
