"""A web server over TLS: connections are counted before they are encrypted, and know whose certificate is shown."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from fedmunkey.server.connections.doorway import Doorway
from fedmunkey.server.connections.places import Places

CLIENT_CERTIFICATE = "client-certificate"
"""In a request's scope, below `extensions`: the certificate that the other end has shown, DER; empty for none."""


class Connection(H11Protocol):
    """Says when it is lost. Its headers are bounded by h11, which httptools' are not."""

    left: Callable[[], None] = staticmethod(lambda: None)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Have every request of this connection say whose it is."""
        super().connection_made(transport)
        encryption = transport.get_extra_info("ssl_object")
        shown = b"" if encryption is None else encryption.getpeercert(binary_form=True) or b""
        application = self.app

        async def certified(scope: Any, receive: Any, send: Any) -> None:
            """Hand a request on with the certificate of its connection."""
            known = {**scope.get("extensions", {}), CLIENT_CERTIFICATE: shown}
            await application({**scope, "extensions": known}, receive, send)

        self.app = certified

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the connection's place."""
        super().connection_lost(exc)
        self.left()


class WebServer(uvicorn.Server):
    """Takes connections by doorways, into the places of each socket; without places, as on loopback, uncounted.

    `on_ready` is called once it serves. The configuration's `ssl` is what connections are encrypted with.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        places: Sequence[Places | None],
        on_ready: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._places = places
        self._on_ready = on_ready
        self._doorways: list[Doorway] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve at the sockets."""
        self.servers: list[asyncio.base_events.Server] = []
        await self.lifespan.startup()
        if self.lifespan.should_exit or self.config.ssl is None:
            self.should_exit = True
            return
        for listening, places in zip(sockets or (), self._places, strict=True):
            doorway = Doorway(listening, self.config.ssl, self._connection, places)
            doorway.open()
            self._doorways.append(doorway)
        self.started = True
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and end those that are there."""
        for doorway in self._doorways:
            doorway.close()
        await super().shutdown(sockets)

    def _connection(self, left: Callable[[], None]) -> asyncio.Protocol:
        connection = Connection(self.config, self.server_state, self.lifespan.state)
        connection.left = left
        return connection
