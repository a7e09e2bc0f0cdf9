from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.message_pb2 import Metadata as MetadataProto
from flwr.proto.node_pb2 import Node

from fedmunkey.server.superlink.guard import AT_ONCE, LARGEST_BODY, Guard, Receive, Scope, Send
from fedmunkey.server.superlink.signed_calls import find_signer

CONTROL = 8444
SITES = ("192.0.2.1", 8443)
LOOPBACK = ("127.0.0.1", CONTROL)
HOSPITAL = ("198.51.100.7", 50_000)
OWN = ("127.0.0.1", 50_000)


NOW = datetime(2026, 11, 27, 6, 0, tzinfo=UTC)
KEY, OTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
Headers = list[tuple[bytes, bytes]]


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def signed(
    key: ec.EllipticCurvePrivateKey = KEY, at: str = NOW.isoformat(), *, shown: bytes = b"", length: str | None = "0"
) -> Headers:
    """Return the headers of a call as a SuperNode sends it."""
    signature = key.sign(at.encode(), ec.ECDSA(hashes.SHA256()))
    said = {
        b"flwr-public-key": b64encode(shown or pem(key)),
        b"flwr-timestamp": at.encode(),
        b"flwr-signature": b64encode(signature),
    }
    return [*said.items(), *([(b"content-length", length.encode())] if length is not None else [])]


def guarded(application: Any, introduced: list[tuple[tuple[str, int], str]] | None = None) -> Guard:
    def introduce(peer: tuple[str, int], site: str) -> None:
        if introduced is not None:
            introduced.append((peer, site))

    return Guard(
        application, CONTROL, lambda headers: find_signer(headers, {pem(KEY): "hospital-1"}, lambda: NOW), introduce
    )


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """The application behind the guard: it answers everything with what it was sent."""
    message = await receive() if scope["method"] == "POST" else {}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message.get("body", b"")})


def status(
    path: str,
    *,
    at: tuple[str, int],
    peer: tuple[str, int] | None,
    kind: str = "http",
    headers: Headers | None = None,
    body: list[bytes] | None = None,
) -> int:
    """Return the status of the guard's answer, or the code with which it closes a web socket.

    What is left of `body` was not read.
    """
    sent: list[MutableMapping[str, Any]] = []
    parts = [b""] if body is None else body

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    said = signed() if headers is None else headers
    scope = {
        "type": kind,
        "method": "POST",
        "path": path,
        "server": at,
        "client": peer,
        "headers": [*said, (b"x-forwarded-for", b"127.0.0.1")],
    }
    asyncio.run(guarded(answer)(scope, receive, send))
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


@pytest.mark.parametrize(
    "headers",
    [
        [],
        signed(OTHER),
        signed(OTHER, shown=pem(KEY)),
        signed(at=(NOW - timedelta(minutes=6)).isoformat()),
        signed(at=(NOW + timedelta(minutes=1)).isoformat()),
        signed(at=NOW.replace(tzinfo=None).isoformat()),
        signed(at="now"),
        [*signed()[:2], (b"flwr-signature", b"*")],
        [(b"flwr-public-key", b"A" * 4096), *signed()[1:]],
    ],
)
def test_no_byte_of_a_strangers_large_body_is_read(headers: Headers) -> None:
    body = [b"x" * 2**20] * 3

    length = [(b"content-length", str(3 * 2**20).encode())]
    said = [(name, value) for name, value in headers if name != b"content-length"] + length
    assert status("/v1/fleet/push-object", at=SITES, peer=HOSPITAL, headers=said, body=body) == 401
    assert len(body) == 3


def test_stranger_that_sends_little_hears_why_it_is_refused() -> None:
    body = [b"x"]

    assert status("/v1/fleet/x", at=SITES, peer=HOSPITAL, headers=[(b"content-length", b"1")], body=body) == 401
    assert body == []


@pytest.mark.parametrize(
    ("length", "expected"),
    [(str(LARGEST_BODY + 1), 413), ("9" * 20, 411), (None, 411), ("-1", 411), ("1e3", 411), (str(LARGEST_BODY), 200)],
)
def test_site_says_how_much_it_sends_and_that_is_bounded(length: str | None, expected: int) -> None:
    body = [b"x"]

    assert (
        status("/v1/fleet/push-object", at=SITES, peer=HOSPITAL, headers=signed(length=length), body=body) == expected
    )
    assert len(body) == (0 if expected == 200 else 1)


def test_health_is_told_to_everybody_and_reads_nothing() -> None:
    body = [b"x" * 2**20]

    assert status("/health", at=SITES, peer=HOSPITAL, headers=[], body=body) == 200
    assert len(body) == 1


def test_requests_of_one_site_take_turns_and_leave_the_others_alone() -> None:
    asyncio.run(hold_more_than_take_turns())


async def hold_more_than_take_turns() -> None:
    running, done = 0, asyncio.Event()
    introduced: list[tuple[tuple[str, int], str]] = []

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
        nonlocal running
        running += 1
        await done.wait()

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        raise AssertionError(message)

    guard = guarded(slow, introduced)
    scope = {"type": "http", "method": "POST", "path": "/v1/fleet/x", "server": SITES, "client": HOSPITAL}
    calls = [asyncio.create_task(guard({**scope, "headers": signed()}, receive, send)) for _ in range(2 * AT_ONCE)]
    while len(introduced) < len(calls):
        await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
    assert running == AT_ONCE
    done.set()
    await asyncio.gather(*calls)
    assert running == len(calls)
    assert set(introduced) == {(HOSPITAL, "hospital-1")}


def test_path_with_escape_codes_writes_no_line_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        status("/a\n2026-11-27 INFO all is well\x1b[2J\u202e", at=SITES, peer=HOSPITAL)

    [line] = [record.getMessage() for record in caplog.records]
    assert line == "refused /a\\n2026-11-27 INFO all is well\\x1b[2J\\u202e from 198.51.100.7: there is nothing"


@pytest.mark.parametrize(("node", "expected"), [(7, 200), (8, 403), (0, 403)])
def test_site_sends_replies_in_no_other_nodes_name(node: int, expected: int) -> None:
    """Flower holds the node that sends against its key, and not the one that a reply says it is from."""
    reply = MessageProto(metadata=MetadataProto(src_node_id=node))
    body = PushMessagesRequest(node=Node(node_id=7), messages_list=[reply]).SerializeToString()
    headers = signed(length=str(len(body)))

    assert status("/v1/fleet/push-messages", at=SITES, peer=HOSPITAL, headers=headers, body=[body]) == expected


def test_replies_that_are_no_message_are_refused() -> None:
    assert (
        status("/v1/fleet/push-messages", at=SITES, peer=HOSPITAL, headers=signed(length="3"), body=[b"\xff" * 3])
        == 403
    )
