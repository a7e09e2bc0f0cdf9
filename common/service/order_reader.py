"""Reading a stream of orders in a thread of its own, so that what comes while others are applied is taken together."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from fedmunkey.common.deletions.words import DeletionOrder
from fedmunkey.common.service.deletion_service import MOST_TOGETHER
from fedmunkey.common.stop_signals import LOOK_SECONDS

_MOST_BYTES = 4 * 2**20


class OrderReader:
    """Holds the orders that have come and were not taken yet; it begins to read at once.

    The stream yields orders, each with the bytes that it took.
    """

    def __init__(self, stream: Iterator[tuple[DeletionOrder, int]]) -> None:
        self._changed = threading.Condition()
        self._orders: list[DeletionOrder] = []
        self._bytes = 0
        self._ended = False
        self._fault: Exception | None = None
        self._thread = threading.Thread(target=self._read, args=(stream,), name="order-reader", daemon=True)
        self._thread.start()

    def take(self) -> list[DeletionOrder]:
        """Wait for an order and return all that are there, at most `MOST_TOGETHER`; none once the stream has ended.

        Once all that came before was taken, it raises what the stream raised.
        """
        with self._changed:
            while not (self._orders or self._ended):
                self._changed.wait(LOOK_SECONDS)
            taken, self._orders, self._bytes = self._orders, [], 0
            self._changed.notify_all()
        if not taken and self._fault is not None:
            raise self._fault
        return taken

    def close(self) -> None:
        """Let go of the stream, which has to have been made to end, and of all that was not taken."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()

    def _read(self, stream: Iterator[tuple[DeletionOrder, int]]) -> None:
        try:
            for order, size in stream:
                with self._changed:
                    # What is not read yet waits at the service, so a slow site needs no more memory than this.
                    self._changed.wait_for(
                        lambda: self._ended or (len(self._orders) < MOST_TOGETHER and self._bytes < _MOST_BYTES)
                    )
                    if self._ended:
                        return
                    self._orders.append(order)
                    self._bytes += size
                    self._changed.notify_all()
        except Exception as error:
            self._fault = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
