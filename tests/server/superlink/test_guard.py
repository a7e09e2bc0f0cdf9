from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from fedmunkey.server.superlink.guard import Guard, Receive, Scope, Send

CONTROL = 8444
SITES = ("192.0.2.1", 8443)
LOOPBACK = ("127.0.0.1", CONTROL)
HOSPITAL = ("198.51.100.7", 50_000)
OWN = ("127.0.0.1", 50_000)


async def answer(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
    """The application behind the guard: it answers everything."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"yes"})


def status(path: str, *, at: tuple[str, int], peer: tuple[str, int] | None, kind: str = "http") -> int:
    """Return the status of the guard's answer, or the code with which it closes a web socket."""
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request"}

    scope = {"type": kind, "path": path, "server": at, "client": peer, "headers": [(b"x-forwarded-for", b"127.0.0.1")]}
    asyncio.run(Guard(answer, CONTROL)(scope, receive, send))
    return int(sent[0].get("status") or sent[0]["code"])


@pytest.mark.parametrize("path", ["/v1/fleet/pull-messages", "/v1/fleet/activate-node", "/health"])
def test_sites_reach_what_sites_need(path: str) -> None:
    assert status(path, at=SITES, peer=HOSPITAL) == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run",
        "/v1/control/list-nodes",
        "/v1/runtime/acquire-task",
        "/v1/fleet",
        "/v1/fleetcontrol/start-run",
        "/docs",
        "/openapi.json",
        "/health/../v1/control/start-run",
        "/",
    ],
)
def test_nothing_else_is_reached_from_outside(path: str) -> None:
    assert status(path, at=SITES, peer=HOSPITAL) == 404


def test_control_is_reached_at_its_own_address_from_this_machine() -> None:
    assert status("/v1/control/start-run", at=LOOPBACK, peer=OWN) == 200
    assert status("/v1/runtime/acquire-task", at=("::1", CONTROL), peer=("::1", 50_000)) == 200


@pytest.mark.parametrize(
    ("at", "peer"),
    [
        (LOOPBACK, HOSPITAL),
        (("192.0.2.1", CONTROL), OWN),
        (LOOPBACK, None),
        (LOOPBACK, ("unix", 0)),
        # A proxy at the sites' address on this machine would make every peer look local.
        (("127.0.0.1", 8443), OWN),
    ],
)
def test_control_address_serves_this_machine_only(at: tuple[str, int], peer: tuple[str, int] | None) -> None:
    assert status("/v1/control/start-run", at=at, peer=peer) == 404


def test_web_sockets_are_refused_from_outside() -> None:
    assert status("/v1/fleet/pull-messages", at=SITES, peer=HOSPITAL, kind="websocket") == 1008
