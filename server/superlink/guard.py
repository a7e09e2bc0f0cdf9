"""What may be asked of the SuperLink, and by whom.

Flower's SuperLink answers on one port to sites (`/v1/fleet`, authenticated by their keys) and to whoever starts, stops
and reads runs or runs their code (`/v1/control`, `/v1/runtime`, authenticated by nothing). The guard lets the latter
through only where a request came in at the control address, which is on loopback, from this machine.

Flower reads a request's body before it asks who sent it. So the guard looks at the signed headers first: where no site
of the register has signed them, nothing more is read.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.error.catalog import API_ERROR_MAP
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from fedmunkey.common.service.foreign_text import printable

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

FindSite = Callable[[MutableMapping[str, str]], str | None]
"""Takes a request's headers, names in small letters, and returns the site that has signed them just now."""

FOR_SITES = "/v1/fleet/"
HEALTH = "/health"

LARGEST_BODY = 16 * 2**20
"""Bytes of one request of a site; Flower sends what is larger in parts of 5 MiB."""

AT_ONCE = 8
"""Requests of one site that are read and answered at the same time; others wait."""

_ACTIVATION = f"{FOR_SITES}activate-node"
_REPLIES = f"{FOR_SITES}push-messages"
_FAILED = ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED
_NOT_ACTIVATED = (
    API_ERROR_MAP[_FAILED].http_status_code,
    json.dumps(FlowerError(_FAILED, "").to_json(API_ERROR_MAP[_FAILED].public_message)).encode(),
)
"""What a SuperNode that begins understands as the end; at 401 it would try again for ever."""

_READ_ANYWAY = 16 * 2**10
_SIZE_DIGITS = 12

BODY_SECONDS = 120.0
"""How long a site may take to send a body."""


class Guard:
    """An ASGI application in front of the SuperLink's, which is reached by the port of the control address alone.

    `find_site` says who a request is from, and `introduce` is told of each connection whose it is.
    """

    def __init__(
        self,
        application: Application,
        control_port: int,
        find_site: FindSite,
        introduce: Callable[[tuple[str, int], str], None],
    ) -> None:
        self._application = application
        self._control_port = control_port
        self._find_site = find_site
        self._introduce = introduce
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 404 as if there were nothing, or with why it is not read."""
        if scope["type"] == "lifespan" or self._came_by_control(scope):
            await self._application(scope, receive, send)
        elif scope["type"] != "http":
            self._say_refused(scope, "it is no HTTP request")
            await send({"type": "websocket.close", "code": 1008})
        elif scope["path"] == HEALTH:
            await self._application(scope, _nothing, send)
        elif str(scope["path"]).startswith(FOR_SITES):
            await self._answer_site(scope, receive, send)
        else:
            self._say_refused(scope, "there is nothing")
            await _refuse(send, 404)

    async def _answer_site(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _single(scope["headers"])
        site = self._find_site(headers)
        size = _size(headers)
        if site is None:
            self._say_refused(scope, "no site of the register has signed it")
            if size is not None and size <= _READ_ANYWAY:
                # Whoever is cut off while it speaks does not hear the answer.
                await _body(receive)
            await _refuse(send, *(_NOT_ACTIVATED if scope["path"] == _ACTIVATION else (401, b"")))
            return
        if size is None or size > LARGEST_BODY:
            self._say_refused(scope, f"{site} does not say that it sends at most {LARGEST_BODY} bytes")
            await _refuse(send, 411 if size is None else 413)
            return
        if scope.get("client"):
            self._introduce(scope["client"], site)
        async with self._turns[site]:
            try:
                body = await asyncio.wait_for(_body(receive), BODY_SECONDS)
            except TimeoutError:
                self._say_refused(scope, f"{site} has not sent all of it within {BODY_SECONDS:g} seconds")
                await _refuse(send, 408)
                return
            if body is None:
                return
            if scope["path"] == _REPLIES and not _speaks_for_itself(body):
                self._say_refused(scope, f"{site} answers for another SuperNode")
                await _refuse(send, 403)
            else:
                await self._application(scope, _once(body, receive), send)

    def _say_refused(self, scope: Scope, reason: str) -> None:
        peer = (scope.get("client") or ("unknown",))[0]
        logger.warning("refused %s from %s: %s", printable(str(scope.get("path"))), peer, reason)

    def _came_by_control(self, scope: Scope) -> bool:
        at, peer = scope.get("server"), scope.get("client")
        return bool(at and peer and at[1] == self._control_port and _is_local(at[0]) and _is_local(peer[0]))


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _single(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by name, without those that are there twice: whoever reads on might take the other one."""
    said = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]
    times = Counter(name for name, _ in said)
    return {name: value for name, value in said if times[name] == 1}


def _size(headers: MutableMapping[str, str]) -> int | None:
    """Return how long a body is, None if its sender does not say."""
    said = headers.get("content-length", "")
    return int(said) if said.isascii() and said.isdigit() and len(said) <= _SIZE_DIGITS else None


def _speaks_for_itself(body: bytes) -> bool:
    """Say whether replies are of the node that sends them; Flower holds that one against its key, and no more."""
    try:
        request = PushMessagesRequest.FromString(body)
    except DecodeError:
        return False
    return all(reply.metadata.src_node_id == request.node.node_id for reply in request.messages_list)


async def _refuse(send: Send, status: int, body: bytes = b"") -> None:
    # Whatever else was sent is read no more.
    headers = [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _nothing() -> MutableMapping[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _body(receive: Receive) -> bytes | None:
    """Return a body that is known not to be too large, or None if its sender has gone."""
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _once(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body, and then whatever comes."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> MutableMapping[str, Any]:
        return waiting.pop() if waiting else await receive()

    return give
