"""What stands before every page: which addresses a browser may have typed, and what it may do with what it is sent."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

LARGEST_BODY = 8 * 2**20
"""Bytes that a form may have: the ids of as many records as one request names, and room for long ones."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
"""What every answer carries; pages that a session sees are kept by no cache."""

_Message = dict[str, Any]


class Guard:
    """Stands before an application and lets through what names one of some hosts and is no larger than allowed.

    A page elsewhere whose name was made to point to this machine (DNS rebinding) names another host.
    """

    def __init__(self, app: Any, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer, or hand on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        refused = self._refuse(headers)
        if refused is not None:
            await _answer(send, *refused)
            return
        cached = scope["path"].startswith("/static/")

        async def send_guarded(message: _Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_lines(cached)]
            await send(message)

        await self._app(scope, _bounded(receive), send_guarded)

    def _refuse(self, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        if headers.get(b"host", b"").decode("latin-1").lower() not in self._hosts:
            return 421, "this console answers under its own address only; open the link that it has printed"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > LARGEST_BODY:
            return 413, f"a form has at most {LARGEST_BODY} bytes; name fewer ids at a time"
        return None


class TooLargeError(Exception):
    """A body went on for longer than `LARGEST_BODY`."""


def _bounded(receive: Any) -> Any:
    taken = 0

    async def bounded() -> _Message:
        nonlocal taken
        message: _Message = await receive()
        taken += len(message.get("body", b""))
        if taken > LARGEST_BODY:
            raise TooLargeError
        return message

    return bounded


def _lines(cached: bool) -> Iterable[tuple[bytes, bytes]]:
    kept = {"cache-control": "private, max-age=3600" if cached else "no-store"}
    return [(name.encode(), value.encode()) for name, value in (HEADERS | kept).items()]


async def _answer(send: Any, status: int, text: str) -> None:
    lines = [(b"content-type", b"text/plain; charset=utf-8"), *_lines(cached=False)]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": f"{text}\n".encode()})
