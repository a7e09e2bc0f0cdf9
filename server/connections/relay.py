"""What stands before a gRPC server that strangers reach: it counts connections before gRPC spends anything on them.

gRPC makes all that a TLS handshake needs, some 50 KiB, as soon as somebody connects, and cannot be told how many of
these may wait, or of whom. So connections are taken here, and what they say is handed on unread to the server, which
listens on loopback. Whoever has said nothing yet costs a socket. Whose a connection is, gRPC says once it knows.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Sequence
from typing import cast

from fedmunkey.server.connections.places import Peer, Places

_HOST = "127.0.0.1"
_BACKLOG = 2048

_KNOWN_BYTES = 2**18
"""More than any handshake has: whoever has sent so much, is known to the server, which would have ended it."""

_log = logging.getLogger(__name__)


class Relay:
    """Takes connections at sockets, in a thread of its own, and hands on what they say to a port of this machine.

    Its methods may be called in any thread; `caller` is what gRPC calls whoever calls.
    """

    def __init__(self, sockets: Sequence[socket.socket], places: Places) -> None:
        self._sockets = sockets
        self.port = int(sockets[0].getsockname()[1])
        """The port at which it takes connections."""
        self._loop = asyncio.new_event_loop()
        self._connections = _Connections(places)
        self._servers: list[asyncio.Server] = []
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._behind = 0

    def start(self, port: int) -> None:
        """Begin to hand on to a port."""
        self._behind = port
        self._thread.start()

    def stop(self) -> None:
        """End every connection; one that was never started only stops listening."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        for one in self._sockets:
            one.close()

    def origin(self, caller: str) -> str:
        """Return the host from which somebody calls; empty if it has gone."""
        return self._connections.inside.get(caller, ("", 0))[0]

    def introduce(self, caller: str, member: str) -> None:
        """Say whose a connection is."""
        peer = self._connections.inside.get(caller)
        if peer is not None and self._connections.members.get(caller) != member:
            self._connections.members[caller] = member
            self._loop.call_soon_threadsafe(self._connections.places.introduce, peer, member)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._open())
            self._loop.run_forever()
            self._loop.run_until_complete(self._close())
        finally:
            self._loop.close()

    async def _open(self) -> None:
        for one in self._sockets:
            self._servers.append(
                await self._loop.create_server(
                    lambda: _Outside(self._connections, self._behind), sock=one, backlog=_BACKLOG
                )
            )

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        # Connections that are just being made are there afterwards, or failed.
        making = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*making, return_exceptions=True)
        for transport in list(self._connections.open):
            transport.abort()
        # Their ends are told in the loop's next turns.
        while self._connections.open:
            await asyncio.sleep(0)


class _Connections:
    """What both ends of connections share: the places, who is who, and all transports that are open."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.inside: dict[str, Peer] = {}
        """The outer ends of connections by what gRPC calls the inner ones."""
        self.members: dict[str, str] = {}
        self.open: set[asyncio.Transport] = set()


class _End(asyncio.Protocol):
    """One end of a connection; what it hears, the other end says, no faster than that is taken."""

    def __init__(self, connections: _Connections) -> None:
        self.connections = connections
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.connections.open.add(self.transport)

    def data_received(self, data: bytes) -> None:
        """Pass on what the peer sends; what comes before the other end is open waits here."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self.transport is not None:
            self.connections.open.discard(self.transport)
        if self.other is not None and self.other.transport is not None:
            # What was handed over is still said.
            self.other.transport.close()


class _Outside(_End):
    """The end at which somebody connects; the other one is made once it says something."""

    def __init__(self, connections: _Connections, port: int) -> None:
        super().__init__(connections)
        self._port = port
        self._peer: Peer = ("", 0)
        self._said = b""
        self._bytes = 0
        self._opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername") or ("", 0)
        self._peer = (str(peer[0]), int(peer[1]))
        self.connections.places.take(self._peer, cast(asyncio.Transport, transport).abort)

    def data_received(self, data: bytes) -> None:
        if self._bytes <= _KNOWN_BYTES < self._bytes + len(data):
            self.connections.places.wait_on(self._peer)
        self._bytes += len(data)
        if self.other is not None:
            super().data_received(data)
            return
        self._said += data
        if self._opening is None and self.transport is not None:
            self.transport.pause_reading()
            self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        try:
            _, inside = await asyncio.get_running_loop().create_connection(
                lambda: _Inside(self.connections, self), _HOST, self._port
            )
        except OSError as error:
            _log.warning("a connection could not be handed on: %s", error.strerror)
            if self.transport is not None:
                self.transport.abort()
            return
        if self.transport is None or self.transport.is_closing() or inside.transport is None:
            inside.end()
            return
        self.other = inside
        self.connections.inside[inside.name] = self._peer
        inside.transport.write(self._said)
        self._said = b""
        self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.places.leave(self._peer)
        super().connection_lost(exc)


class _Inside(_End):
    """The end at the server, by whose port gRPC knows it."""

    name = ""

    def __init__(self, connections: _Connections, outside: _Outside) -> None:
        super().__init__(connections)
        self.other = outside

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.name = f"ipv4:{_HOST}:{transport.get_extra_info('sockname')[1]}"

    def end(self) -> None:
        """End it without a word."""
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.inside.pop(self.name, None)
        self.connections.members.pop(self.name, None)
        super().connection_lost(exc)
