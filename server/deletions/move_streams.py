"""Streams of what moves in the ledger: whoever writes, this process or another, it is noticed by the last event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from fedmunkey.common.deletions.listing import Moved
from fedmunkey.server.ledger.moves import LOOK_SECONDS

LastEvent = Callable[[], Awaitable[int]]
Moves = Callable[[int], Awaitable[tuple[Moved, ...]]]


class MoveStreams:
    """Tells those who follow what moves; used within one event loop.

    `last_event` asks the ledger; what it raises ends the streams.
    """

    def __init__(self, last_event: LastEvent) -> None:
        self._last_event = last_event
        self._looked: tuple[float, asyncio.Future[int]] | None = None
        self._stopped = False

    async def follow(self, after: int, moves: Moves) -> AsyncIterator[Moved]:
        """Yield where the stream begins, then what moves, until `stop`; `after` is 0 for from now on."""
        after = after or await self._look()
        yield Moved(after)
        while not self._stopped:
            last = await self._look()
            if last <= after:
                # A ledger that went back to a copy counts from there.
                after = last
                await asyncio.sleep(LOOK_SECONDS)
                continue
            found = await moves(after)
            for moved in found:
                yield moved
            # Events of requests that this reader may not see are behind it as well.
            after = found[-1].event if found else last

    def stop(self) -> None:
        """End every stream, each within `LOOK_SECONDS`."""
        self._stopped = True

    def _look(self) -> asyncio.Future[int]:
        """Return the last event as it was at most `LOOK_SECONDS` ago."""
        now = asyncio.get_running_loop().time()
        if self._looked is None or now - self._looked[0] >= LOOK_SECONDS:
            self._looked = (now, asyncio.ensure_future(self._last_event()))
        # Whoever goes away must not take the answer from the others.
        return asyncio.shield(self._looked[1])
