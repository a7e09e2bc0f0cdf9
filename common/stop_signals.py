"""SIGINT and SIGTERM as a request to stop, for programs that run until they are told to."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue

LOOK_SECONDS = 0.5
"""How long the main thread of such a program may wait at a time.

Python runs handlers in the main thread alone, and a signal that comes just before that thread waits wakes nobody.
"""


class StopAsked:
    """Whether a stop was asked for; unlike an event, it can be told so by a signal handler at any moment."""

    def __init__(self) -> None:
        # A handler may interrupt the main thread while it holds an event's lock; this queue has none of its own.
        self._asked: SimpleQueue[None] = SimpleQueue()

    def ask(self) -> None:
        """Ask for the stop."""
        self._asked.put(None)

    def wait(self) -> None:
        """Wait, in any thread, until somebody asks; each call waits for an asking of its own."""
        while True:
            with contextlib.suppress(Empty):
                return self._asked.get(timeout=LOOK_SECONDS)


@contextlib.contextmanager
def stopped_by_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Call a function, which must be safe in a signal handler, at SIGINT and SIGTERM while the context lasts."""
    before = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
