"""A TCP proxy that cuts, delays, throttles and swallows connections when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Self

from fedmunkey.common.settings.addresses import split_address

_CHUNK = 16 * 1024
_PATIENCE = 10.0
_NO_LINGERING = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Conditions:
    """What a proxy does to what passes through it, in either direction of a connection; each piece waits for `delay` s.

    In a black hole nothing passes, and nobody is told: what arrives waits until the conditions change. A proxy that is
    refusing closes connections as soon as they are made.
    """

    delay: float = 0.0
    bytes_per_second: float = math.inf
    black_hole: bool = False
    refusing: bool = False


CLEAR = Conditions()
"""Everything passes at once."""


class Proxy:
    """Passes connections on to `host:port`, where nothing need listen yet, in a thread of its own.

    All methods may be called from any thread.
    """

    def __init__(self, target: str) -> None:
        self._target = split_address(target)
        self._conditions = CLEAR
        self._writers: set[asyncio.StreamWriter] = set()
        self._changed = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._ending: asyncio.Future[None] | None = None
        self._thread: threading.Thread | None = None
        self._port = 0
        self.cuts = 0

    def __enter__(self) -> Self:
        listening: Future[int] = Future()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._serve(listening)])
        self._thread.start()
        self._port = listening.result(_PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._end)
        if self._thread is not None:
            self._thread.join(_PATIENCE)
        self._loop.close()

    @property
    def address(self) -> str:
        """`host:port` at which connections are taken."""
        return f"127.0.0.1:{self._port}"

    def set(self, conditions: Conditions) -> None:
        """Change what happens to open connections and to those to come."""

        def change() -> None:
            self._conditions = conditions
            self._changed.set()
            self._changed = asyncio.Event()

        self._call(change)

    def cut(self) -> None:
        """Reset every open connection."""

        def reset() -> None:
            self.cuts += bool(self._writers)
            for writer in self._writers:
                # Closed with this, a connection is reset instead of ended in order; it may have ended already.
                with contextlib.suppress(OSError):
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
                writer.transport.abort()

        self._call(reset)

    def _end(self) -> None:
        if self._ending is not None:
            self._ending.set_result(None)

    def _call(self, do: Callable[[], object]) -> None:
        """Do something in the proxy's thread, and wait until it is done."""
        done: Future[None] = Future()

        def run() -> None:
            do()
            done.set_result(None)

        self._loop.call_soon_threadsafe(run)
        done.result(_PATIENCE)

    async def _serve(self, listening: Future[int]) -> None:
        self._ending = self._loop.create_future()
        connections: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = self._loop.create_task(self._pass_on(reader, writer))
            connections.add(connection)
            connection.add_done_callback(connections.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        listening.set_result(server.sockets[0].getsockname()[1])
        await self._ending
        server.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        there: asyncio.StreamWriter | None = None
        try:
            if self._conditions.refusing:
                return
            back, there = await asyncio.open_connection(*self._target)
            self._writers.add(there)
            async with asyncio.TaskGroup() as directions:
                directions.create_task(self._pump(reader, there))
                directions.create_task(self._pump(back, writer))
        except (OSError, ExceptionGroup):
            # Whoever is at the other end hears of it by the connection's end.
            pass
        finally:
            for each in filter(None, (writer, there)):
                self._writers.discard(each)
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            while self._conditions.black_hole:
                await self._changed.wait()
            pause = self._conditions.delay + len(data) / self._conditions.bytes_per_second
            if pause:
                await asyncio.sleep(pause)
            writer.write(data)
            await writer.drain()
        writer.write_eof()
