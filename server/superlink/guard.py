"""What may be asked of the SuperLink, and by whom.

Flower's SuperLink answers on one port to sites (`/v1/fleet`, authenticated by their keys) and to whoever starts, stops
and reads runs or runs their code (`/v1/control`, `/v1/runtime`, authenticated by nothing). The guard lets the latter
through only where a request came in at the control address, which is on loopback, from this machine.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

FOR_SITES = "/v1/fleet/"
HEALTH = "/health"


class Guard:
    """An ASGI application in front of the SuperLink's, which is reached by the port of the control address alone."""

    def __init__(self, application: Application, control_port: int) -> None:
        self._application = application
        self._control_port = control_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 404 as if there were nothing."""
        if scope["type"] == "lifespan" or self._may_pass(scope):
            await self._application(scope, receive, send)
            return
        peer = (scope.get("client") or ("unknown",))[0]
        logger.warning("refused %s from %s", scope.get("path"), peer)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    def _may_pass(self, scope: Scope) -> bool:
        path = str(scope["path"])
        for_sites = scope["type"] == "http" and (path == HEALTH or path.startswith(FOR_SITES))
        return for_sites or self._came_by_control(scope)

    def _came_by_control(self, scope: Scope) -> bool:
        at, peer = scope.get("server"), scope.get("client")
        return bool(at and peer and at[1] == self._control_port and _is_local(at[0]) and _is_local(peer[0]))


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
