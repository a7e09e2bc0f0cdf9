"""What moves in the ledger, for those who wait: whoever writes, this process or another, the last event tells."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from fedmunkey.common.deletions.listing import Moved
from fedmunkey.server.ledger.ledger import Ledger

LOOK_SECONDS = 0.2
"""How often the last event is looked up, once for all who follow, and not at all while nobody does."""


class LedgerMoves:
    """Tells those who follow, each in a thread of its own; safe for threads."""

    def __init__(self, ledger: Ledger, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._clock = clock
        self._lock = threading.Lock()
        self._looked = (-LOOK_SECONDS, 0)

    def follow(self, reader: str, after: int, ended: threading.Event) -> Iterator[Moved]:
        """Yield where the stream begins, then what moves of a reader's requests, until `ended` is set.

        `after` is 0 for from now on. Raises `ServiceUnavailable` if the ledger cannot be read.
        """
        after = after or self._last_event()
        yield Moved(after)
        while not ended.wait(LOOK_SECONDS):
            last = self._last_event()
            # A ledger that went back to a copy counts from there.
            after = min(after, last)
            while after < last:
                found = self._ledger.moves_after(reader, after)
                yield from found
                # Events of requests that this reader may not see are behind it as well.
                after = found[-1].event if found else last

    def _last_event(self) -> int:
        """Return the last event as it was at most `LOOK_SECONDS` ago."""
        with self._lock:
            at, last = self._looked
            now = self._clock()
            if now - at >= LOOK_SECONDS:
                last = self._ledger.last_event()
                self._looked = (now, last)
            return last
