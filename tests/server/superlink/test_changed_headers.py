"""Thousands of calls with headers that nobody has signed so: none passes the guard, and none breaks it.

The same ones each time; `MUNKEY_MUTATIONS` says how many others are tried.
"""

from __future__ import annotations

import asyncio
import os
import random
from base64 import b64decode, b64encode
from collections.abc import MutableMapping
from typing import Any

from fedmunkey.server.superlink.guard import LARGEST_BODY
from tests.common.proofs.mutations import mutate
from tests.server.superlink.test_guard import HOSPITAL, OTHER, SITES, Headers, answer, guarded, pem, signed

_FEW = 1500
_OWN = signed()
_NAMES = [name for name, _ in _OWN]
_PATHS = ("/v1/fleet/push-object", "/v1/fleet/activate-node", "/v1/fleet/push-messages", "/v1/fleet/")
_LENGTHS = (
    b"",
    b"-1",
    b"+5",
    b"1e3",
    b"0x10",
    b"9" * 40,
    b"1_000",
    "\u0663".encode(),
    str(LARGEST_BODY + 1).encode(),
    b" 5",
)


def changed(draws: random.Random) -> Headers:
    """Return a site's headers with one change that leaves them signed by nobody, or of no length."""
    headers = list(_OWN)
    place = draws.randrange(len(headers))
    name, value = headers[place]
    kind = draws.randrange(8)
    if kind == 0:
        del headers[place]
    elif kind == 1:
        headers[place] = (name, draws.choice(_LENGTHS) if name == b"content-length" else mutate(value, draws)[:5000])
    elif kind == 2:
        headers.insert(draws.randrange(len(headers) + 1), (name, draws.choice((value, b"", mutate(value, draws)))))
    elif kind == 3:
        headers[place] = (mutate(name, draws)[:200], value)
    elif kind == 4:
        headers[0] = (headers[0][0], b64encode(draws.choice((b"", pem(OTHER), pem(OTHER)[:40], draws.randbytes(91)))))
    elif kind == 5:
        headers[2] = (headers[2][0], signed(OTHER)[2][1])
    elif kind == 6:
        headers[1] = (headers[1][0], draws.choice((b"now", b"9999-12-31T23:59:59+00:00", b"2026-11-27", b"0", b"\xff")))
    else:
        other = draws.randrange(len(headers))
        headers[place] = (name, draws.choice((headers[(place + 1) % 4][1], b"\xff" * 3000, draws.randbytes(64))))
        headers[other], headers[0] = headers[0], headers[other]
    return headers


def means_the_same(headers: Headers) -> bool:
    """Say whether headers are a site's own, written otherwise."""
    names = [name.lower() for name, _ in headers]
    if sorted(name for name in names if name in _NAMES) != sorted(_NAMES):
        return False
    said, own = ({name.lower(): value for name, value in some} for some in (headers, _OWN))
    try:
        decoded = [[b64decode(each[_NAMES[place]], validate=True) for place in (0, 2)] for each in (said, own)]
    except ValueError:
        return False
    length = said[b"content-length"]
    return decoded[0] == decoded[1] and said[_NAMES[1]] == own[_NAMES[1]] and length.isdigit() and int(length) == 0


def status(path: str, headers: Headers) -> int:
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "POST", "path": path, "server": SITES, "client": HOSPITAL, "headers": headers}
    asyncio.run(guarded(answer)(scope, receive, send))
    return int(sent[0]["status"])


def test_call_whose_headers_were_changed_is_nobodys() -> None:
    asked = os.environ.get("MUNKEY_MUTATIONS", "")
    draws = random.Random(os.urandom(8).hex() if asked else "headers")
    assert {status(path, _OWN) for path in _PATHS} == {200}
    for number in range(int(asked or _FEW)):
        headers = changed(draws)
        if means_the_same(headers):
            continue
        assert status(draws.choice(_PATHS), headers) != 200, (number, headers)
