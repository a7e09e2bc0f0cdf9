"""Signals as a request to stop: for programs that run until they are told to, and for those that end by themselves."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue

LOOK_SECONDS = 0.5
"""How long the main thread of such a program may wait at a time.

Python runs handlers in the main thread alone, and a signal that comes just before that thread waits wakes nobody.
"""

_SIGNALLED = 128
"""Added to a signal's number in the exit code of what it has ended."""


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


class _LookingEvent(threading.Event):
    """An event for which the main thread never waits so long that a handler would have to."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set, or for some seconds, and return whether it is."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        while not super().wait(max(min(LOOK_SECONDS, end - time.monotonic()), 0.0)) and time.monotonic() < end:
            pass
        return self.is_set()


@contextlib.contextmanager
def stop_event(end: Callable[[], object] = lambda: None) -> Iterator[threading.Event]:
    """Give an event that is set, after which a function is called, once SIGINT or SIGTERM comes or the context ends.

    The handler only asks: it may interrupt the main thread while that holds the event's lock.
    """
    stop, asked = _LookingEvent(), StopAsked()

    def pass_on() -> None:
        asked.wait()
        stop.set()
        end()

    passing = threading.Thread(target=pass_on, name="stop-signals")
    passing.start()
    try:
        with stopped_by_signals(asked.ask):
            yield stop
    finally:
        asked.ask()
        passing.join()


@contextlib.contextmanager
def ending_at_signals(patience: float) -> Iterator[None]:
    """Have SIGTERM and SIGHUP end what runs in the context as Ctrl-C does, by `SystemExit` in the main thread.

    What has not ended some seconds after the first such signal, or after Ctrl-C, ends at once, whatever it waits for.
    A signal that is ignored, as SIGHUP is under `nohup`, stays so.
    """

    def end(number: int, _: object) -> None:
        # What a second one would interrupt is the tidying up after the first.
        for each in handled:
            signal.signal(each, signal.SIG_IGN)
        watch = threading.Timer(patience, os._exit, [_SIGNALLED + number])
        watch.daemon = True
        watch.start()
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(_SIGNALLED + number)

    handled = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None)
    }
    for number in handled:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)
