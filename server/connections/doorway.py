"""TLS connections of a web server, bounded before anything is spent on them.

A TLS connection costs some hundred kilobytes as soon as it is taken, so it is counted as a socket, before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

from fedmunkey.server.connections.places import Peer, Places

logger = logging.getLogger(__name__)

_HANDSHAKE_SECONDS = 5.0
_GOODBYE_SECONDS = 1.0
_FULL_SECONDS = 0.1


class Doorway:
    """Takes connections at a listening socket, encrypts them and hands each to a protocol of its own.

    A protocol is made with what it calls once its connection is lost. Without `places`, as on loopback, connections are
    not counted.
    """

    def __init__(
        self,
        listening: socket.socket,
        encryption: ssl.SSLContext,
        make_protocol: Callable[[Callable[[], None]], asyncio.Protocol],
        places: Places | None,
    ) -> None:
        listening.setblocking(False)
        self._listening = listening
        self._encryption = encryption
        self._make_protocol = make_protocol
        self._places = places
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Begin."""
        self._keep(self._accept())

    def close(self) -> None:
        """Take no more; those that were handed on stay."""
        for task in list(self._tasks):
            task.cancel()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(self._listening)
            except OSError as error:
                # Out of files, for example: those that are there go on, and end.
                logger.warning("a connection could not be taken: %s", error.strerror)
                await asyncio.sleep(_FULL_SECONDS)
                continue
            self._keep(self._admit(connection, (peer[0], peer[1])))

    def _keep(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _admit(self, connection: socket.socket, peer: Peer) -> None:
        held: list[asyncio.BaseTransport] = []
        ours = asyncio.current_task()

        def end() -> None:
            if held:
                held[0].abort()  # type: ignore[attr-defined]
            elif ours is not None:
                ours.cancel()

        def left() -> None:
            if self._places is not None:
                self._places.leave(peer)

        if self._places is not None:
            self._places.take(peer, end)
        try:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._make_protocol(left),
                connection,
                ssl=self._encryption,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=_GOODBYE_SECONDS,
            )
        except (OSError, asyncio.CancelledError):
            # What a stranger says instead of a handshake is no line in a log.
            with contextlib.suppress(OSError):
                connection.close()
            left()
            return
        held.append(transport)
