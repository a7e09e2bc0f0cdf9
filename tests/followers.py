"""Following a stream of orders, as a site's agent does, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue

from fedmunkey.common.deletions.words import DeletionOrder
from tests.patience import PATIENCE


class Follower:
    """Reads a stream; `next` gives the orders that come, then the error that ends it, or None if nothing was wrong."""

    def __init__(self, stream: Iterator[DeletionOrder]) -> None:
        self._heard: SimpleQueue[DeletionOrder | Exception | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def next(self) -> DeletionOrder | Exception | None:
        return self._heard.get(timeout=PATIENCE)

    def join(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def _read(self, stream: Iterator[DeletionOrder]) -> None:
        try:
            for order in stream:
                self._heard.put(order)
        except Exception as error:
            self._heard.put(error)
        else:
            self._heard.put(None)
