"""Awaiting in an event loop what another thread completes, many at a time.

`asyncio.wrap_future` wakes the loop once for each future, through a system call. The ledger's writer completes what it
wrote together, so one wake is enough for all of it.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class Completions:
    """Belongs to the running event loop, which is the one that awaits."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._finished: list[tuple[Future[Any], asyncio.Future[Any]]] = []

    def of(self, future: Future[_Result]) -> asyncio.Future[_Result]:
        """Return what can be awaited for a future; giving up waiting does not cancel the future itself."""
        waiting: asyncio.Future[_Result] = self._loop.create_future()
        future.add_done_callback(lambda done: self._finish(done, waiting))
        return waiting

    def _finish(self, done: Future[Any], waiting: asyncio.Future[Any]) -> None:
        with self._lock:
            self._finished.append((done, waiting))
            if len(self._finished) > 1:
                return
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            finished, self._finished = self._finished, []
        for done, waiting in finished:
            if waiting.done():
                continue
            if (error := done.exception()) is not None:
                waiting.set_exception(error)
            else:
                waiting.set_result(done.result())
