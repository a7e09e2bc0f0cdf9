"""Word of what moves in the ledger, for every page that is open: server-sent events from one stream."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

from fedmunkey.common.console.session import Viewer
from fedmunkey.common.deletions.listing import Moved
from fedmunkey.common.errors import FedmunkeyError, ServiceUnavailable
from fedmunkey.common.service.console_service import ConsoleService
from fedmunkey.common.service.waiting import pauses

GATHER_SECONDS = 0.1
"""For so long what moves is gathered into one word, so that a burst does not draw a page a hundred times."""

_ALIVE_SECONDS = 15.0
_MOST_NAMED = 50
_LONGEST_PAUSE = 5.0

_log = logging.getLogger(__name__)


class Live:
    """Follows what moves in a thread of its own and tells pages; `start` and `events` belong to one event loop."""

    def __init__(self, service: ConsoleService, reader: str) -> None:
        self._service = service
        self._reader = reader
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._pages: set[_Page] = set()
        self._connected = True
        self._thread: threading.Thread | None = None

    @property
    def connected(self) -> bool:
        """Whether the deletion service answered when it was last asked."""
        return self._connected

    def start(self) -> None:
        """Begin to follow."""
        self._thread = threading.Thread(target=self._follow, name="what-moves", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the stream of every page; the service is closed by its owner, which ends the thread."""
        self._closed.set()
        self._tell(None)

    async def events(self, may_hear: Callable[[], Awaitable[bool]]) -> AsyncIterator[str]:
        """Yield server-sent events for one page until `close`: what moved, and whether the service is there.

        `may_hear` is asked before each of them, and ends the stream where whoever looks may not any more.
        """
        page = _Page(asyncio.get_running_loop())
        with self._lock:
            self._pages.add(page)
        try:
            yield _event("connection", {"connected": self._connected})
            while not self._closed.is_set():
                said = await page.take()
                if self._closed.is_set() or not await may_hear():
                    return
                yield said
        finally:
            with self._lock:
                self._pages.discard(page)

    def _follow(self) -> None:
        after = 0
        waits = pauses()
        while not self._closed.is_set():
            try:
                for moved in self._service.moves(self._reader, after):
                    self._set_connected(True)
                    waits = pauses()
                    # What moved while the service was away is told once it is back.
                    after = moved.event
                    self._tell(moved)
                    if self._closed.is_set():
                        return
            except ServiceUnavailable:
                self._set_connected(False)
            except FedmunkeyError as error:
                self._set_connected(False)
                _log.warning("%s", error)
            self._closed.wait(min(next(waits), _LONGEST_PAUSE))

    def _set_connected(self, connected: bool) -> None:
        if connected != self._connected:
            self._connected = connected
            self._tell(Moved(0))

    def _tell(self, moved: Moved | None) -> None:
        with self._lock:
            for page in self._pages:
                page.hear(moved, self._connected)


class Lives:
    """What follows for each reader, from the first page that is drawn for one on; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_reader: dict[str, Live] = {}
        self._closed = False

    def of(self, viewer: Viewer) -> Live:
        """Return what follows for a viewer's reader."""
        with self._lock:
            live = self._by_reader.get(viewer.reader)
            if live is None:
                live = self._by_reader[viewer.reader] = Live(viewer.service, viewer.reader)
                if self._closed:
                    live.close()
                else:
                    live.start()
            return live

    def close(self) -> None:
        """End the stream of every page; services are closed by their owners, which ends the threads."""
        with self._lock:
            self._closed = True
            for live in self._by_reader.values():
                live.close()


class _Page:
    """What one open page has not been told yet."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._wake = asyncio.Event()
        self._moved: dict[str, None] = {}
        self._connected: bool | None = None

    def hear(self, moved: Moved | None, connected: bool) -> None:
        """Note what moves, from any thread; None says only whether the coordinator is there."""

        def note() -> None:
            if moved is not None and moved.request_id:
                self._moved[moved.request_id] = None
            if moved is not None and not moved.event:
                self._connected = connected
            if moved is None or moved.request_id or not moved.event:
                self._wake.set()

        self._call(note)

    def _call(self, note: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(note)
        except RuntimeError:
            # The loop has ended, and with it every page.
            return

    async def take(self) -> str:
        """Return what is to be told, waiting for it; a comment where nothing has moved for a while."""
        try:
            async with asyncio.timeout(_ALIVE_SECONDS):
                await self._wake.wait()
                await asyncio.sleep(GATHER_SECONDS)
        except TimeoutError:
            return ": nothing has moved\n\n"
        self._wake.clear()
        moved, self._moved = list(self._moved), {}
        connected, self._connected = self._connected, None
        said = "" if connected is None else _event("connection", {"connected": connected})
        # A page that is told of many looks at all it shows.
        return said + (_event("moved", moved[:_MOST_NAMED] if len(moved) <= _MOST_NAMED else None) if moved else "")


def _event(name: str, data: object) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
