"""The streams of orders that sites follow, within the event loop of a server.

An order that was just written is handed to the streams that wait for it, without reading the ledger again. Each stream
holds few of them: one whose reader is slow reads the ledger when the reader is ready, so it needs no more memory for a
year of orders than for a day.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from fedmunkey.common.deletions.words import DeletionOrder, DeletionRequest
from fedmunkey.server.deletions.ledger_service import News

MOST_WAITING = 16
"""Orders that a stream holds for its reader."""


class OrderStream:
    """What one reader waits for.

    `left` says whether the site is no longer in the federation, `replaced` whether the ledger is another one now.
    """

    def __init__(self) -> None:
        self.left = False
        self.replaced = False
        self._newest = 0
        self._orders: deque[tuple[int, DeletionRequest]] = deque(maxlen=MOST_WAITING)
        self._woken = asyncio.Event()

    def offer(self, number: int, request: DeletionRequest | None) -> None:
        """Say that an order is there, and what it is for where that is at hand."""
        self._newest = max(self._newest, number)
        if request is not None:
            # A full one forgets its oldest; the reader then finds a gap and reads the ledger.
            self._orders.append((number, request))
        self._woken.set()

    def wake(self) -> None:
        """Have the reader look at what has changed."""
        self._woken.set()

    async def wait(self) -> None:
        """Wait for an order, or for anything else that the reader should look at."""
        await self._woken.wait()
        self._woken.clear()

    def take(self, site: str, after: int) -> list[DeletionOrder]:
        """Return the orders at hand that follow `after` without a gap."""
        taken: list[DeletionOrder] = []
        while self._orders:
            number, request = self._orders.popleft()
            if number == after + 1:
                taken.append(DeletionOrder(number, site, request))
                after = number
        return taken

    def is_behind(self, after: int) -> bool:
        """Return whether orders after a number are in the ledger that are not at hand."""
        return self._newest > after


class OrderStreams:
    """The streams of every site at one server; used by its event loop only."""

    def __init__(self) -> None:
        self._streams: dict[str, set[OrderStream]] = {}

    @contextmanager
    def following(self, site: str) -> Iterator[OrderStream]:
        """Give a stream that hears of a site's orders until the context ends."""
        stream = OrderStream()
        self._streams.setdefault(site, set()).add(stream)
        try:
            yield stream
        finally:
            self._streams[site].discard(stream)
            if not self._streams[site]:
                del self._streams[site]

    def spread(self, news: News) -> None:
        """Tell the streams that it concerns."""
        for site, number in news.numbers.items():
            for stream in self._streams.get(site, ()):
                stream.offer(number, news.request)
        if news.replaced:
            for streams in self._streams.values():
                for stream in streams:
                    stream.replaced = True
                    stream.wake()
        for site in news.left:
            for stream in self._streams.get(site, ()):
                stream.left = True
                stream.wake()

    def wake_all(self) -> None:
        """Have every reader look at what has changed."""
        for streams in self._streams.values():
            for stream in streams:
                stream.wake()
