"""Sites and requesters in great number, each with a connection of its own, in one event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from fedmunkey.common.deletions.words import Acknowledgement, DeletionRequest, SiteState, WholeSite
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.service.channel import MESSAGE_OPTIONS
from fedmunkey.common.service.wire import acknowledgement_to_wire, order_from_wire, request_to_wire
from fedmunkey.protos import deletion_pb2
from fedmunkey.protos.deletion_pb2_grpc import DeletionStub

PATIENCE_SECONDS = 120.0
_CONNECTING_AT_ONCE = 50
CHANNEL_OPTIONS = [*MESSAGE_OPTIONS, ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
"""Of a channel with a connection of its own."""


@dataclass
class Submissions:
    """What requesters met: the seconds from each request to its answer, and a line for each that failed."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def own_request(name: str, site: str) -> DeletionRequest:
    """Return a request of a site for all that it holds, the smallest that there is."""
    return DeletionRequest(name, site, WholeSite(site))


async def submit_for(
    address: str, site: str, clients: int, seconds: float, pause: float, count: Callable[[int], None]
) -> Submissions:
    """Let clients send requests, each the next one a pause after it sent the last, or later if that is not answered."""
    met = Submissions()
    end = time.perf_counter() + seconds

    async def send(client: int) -> None:
        """Send one client's requests until the time is up, and note how long each took or why it failed."""
        async with _stub(address) as stub:
            # Not all at the same moment.
            await asyncio.sleep(pause * client / clients)
            number = 0
            # At least one, however long all took to connect.
            while (start := time.perf_counter()) < end or number == 0:
                request = request_to_wire(own_request(f"load-{client}-{number}", site))
                try:
                    await stub.Submit(deletion_pb2.SubmitRequest(request=request), timeout=PATIENCE_SECONDS)
                    met.seconds.append(time.perf_counter() - start)
                except grpc.RpcError as error:
                    met.errors.append(str(error))
                number += 1
                count(1)
                await asyncio.sleep(max(0.0, pause - (time.perf_counter() - start)))

    await asyncio.gather(*(send(client) for client in range(clients)))
    return met


async def submit_many(address: str, requests: Sequence[DeletionRequest], count: Callable[[int], None]) -> None:
    """Submit requests, a hundred at a time."""
    limit = asyncio.Semaphore(100)
    async with _stub(address) as stub:

        async def send(request: DeletionRequest) -> None:
            """Send one request, and wait for its answer."""
            async with limit:
                message = deletion_pb2.SubmitRequest(request=request_to_wire(request))
                await stub.Submit(message, timeout=PATIENCE_SECONDS)
                count(1)

        await asyncio.gather(*map(send, requests))


class Sites:
    """Sites that follow their orders and answer each at once; `answered` counts their answers."""

    def __init__(self) -> None:
        self.answered = 0
        self._changed = asyncio.Event()

    async def wait(self, answers: int) -> None:
        """Wait until so many answers were taken."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.answered < answers:
                self._changed.clear()
                await self._changed.wait()

    def add(self) -> None:
        """Count an answer."""
        self.answered += 1
        self._changed.set()


@asynccontextmanager
async def connected_sites(address: str, names: Sequence[str], count: Callable[[int], None]) -> AsyncIterator[Sites]:
    """Connect sites and wait until each has its first order, which it has to have already."""
    sites = Sites()
    connecting = asyncio.Semaphore(_CONNECTING_AT_ONCE)
    connected = [asyncio.Event() for _ in names]

    async def follow(name: str, ready: asyncio.Event) -> None:
        """Answer a site's orders for good; the next site may connect once the first order is answered."""
        async with _stub(address) as stub:
            await connecting.acquire()
            stream = stub.Watch(deletion_pb2.WatchRequest(site=name, follow=True))
            async for response in stream:
                answer = acknowledgement_to_wire(_answer(response))
                await stub.Acknowledge(deletion_pb2.AcknowledgeRequest(acknowledgement=answer))
                if not ready.is_set():
                    ready.set()
                    connecting.release()
                    count(1)
                sites.add()

    tasks = [asyncio.create_task(follow(name, ready)) for name, ready in zip(names, connected, strict=True)]
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.gather(*(ready.wait() for ready in connected))
        yield sites
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _stub(address: str) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        yield DeletionStub(channel)  # type: ignore[no-untyped-call]


def _answer(response: deletion_pb2.WatchResponse) -> Acknowledgement:
    order = order_from_wire(response.order)
    return erased(order.number, order.site, order.request.request_id)


def erased(number: int, site: str, request_id: str) -> Acknowledgement:
    """Return a site's answer to an order."""
    return Acknowledgement(number, site, request_id, SiteState.ERASED, 1, 1, Guarantee.EXACT, 0.001)
