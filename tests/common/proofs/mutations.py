"""Changing what was signed, blindly and cleverly, to see that nothing changed is ever believed."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from fedmunkey.client.deletions.order_check import check_order
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.log_heads import LogHead
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signed_requests import OpenedRequest
from fedmunkey.common.proofs.signing.canonical import canonical_json
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.statements import PAYLOAD_TYPE, read_envelope
from fedmunkey.common.proofs.trusted_keys import Role
from fedmunkey.common.proofs.verification import verify_certificate
from fedmunkey.common.service.wire import order_from_wire, order_to_wire
from fedmunkey.protos import deletion_pb2
from fedmunkey.server.deletions.coordinator_proofs import contribution_fault
from tests.common.proofs.identity_mutations import Changeable, changeable_identities
from tests.proof_case import SECRET, SITES, START, STRANGER, TRUST, ProofCase, contributed


def changeables(case: ProofCase) -> dict[str, Changeable]:
    """Return what there is to change: what is signed or sent of deletions, and of identities."""
    now = START + timedelta(days=1)
    order = case.order

    def check(request_signature: bytes) -> bool:
        changed = replace(order, request=replace(order.request, signature=request_signature))
        opened = OpenedRequest.of(changed.request)
        check_order(changed, opened, trust=TRUST, federation=SECRET.federation_id, now=now)
        return True

    def receipt(data: bytes) -> bool:
        envelope = read_envelope(data)
        found = Receipt.of(envelope)
        TRUST.verify(envelope, Role.SITE, found.time, SITES[0])
        if found.request != OpenedRequest.of(order.request).digest:
            raise InvalidProof("for another request")
        return True

    def head(data: bytes) -> bool:
        envelope = read_envelope(data)
        TRUST.verify(envelope, Role.LOG, LogHead.of(envelope).time)
        return True

    part = contributed(SITES[0], 1)

    def contribution(data: bytes) -> bool:
        return not contribution_fault(replace(part, statement=data), TRUST)

    def message(data: bytes) -> bool:
        found = deletion_pb2.DeletionOrder()
        try:
            found.ParseFromString(data)
        except DecodeError:
            # gRPC ends such a call before any of our code sees it.
            raise InvalidProof("no message") from None
        changed = order_from_wire(found)
        opened = OpenedRequest.of(changed.request)
        check_order(changed, opened, trust=TRUST, federation=SECRET.federation_id, now=now)
        # An order's number and site are the coordinator's to choose; the key store checks that they are its own and
        # next. What the requester signed must be what it was.
        return changed.request != order.request or changed.request.signature != order.request.signature

    return {
        "request": (order.request.signature, check),
        "receipt": (case.receipt, receipt),
        "log head": (case.head, head),
        "certificate": (case.certificate, lambda data: bool(verify_certificate(data, TRUST))),
        "contribution": (part.statement, contribution),
        "stream message": (order_to_wire(order).SerializeToString(deterministic=True), message),
        **changeable_identities(),
    }


def mutate(data: bytes, draws: random.Random) -> bytes:
    """Return data with one change: of its bytes, of its values as JSON, or of what an envelope in it holds."""
    return draws.choice((_change_bytes, _change_bytes, _change_values, _change_payload))(data, draws)


def _change_bytes(data: bytes, draws: random.Random) -> bytes:
    start = draws.randrange(len(data) + 1)
    end = min(len(data), start + draws.choice((0, 1, 1, 1, 2, 4, 64, len(data))))
    kind = draws.randrange(6)
    if kind == 0 and start < len(data):
        return data[:start] + bytes([data[start] ^ (1 << draws.randrange(8))]) + data[start + 1 :]
    if kind == 1:
        return data[:start] + data[end:]
    if kind == 2:
        return data[:start] + draws.randbytes(draws.randrange(1, 9)) + data[end:]
    if kind == 3:
        return data[:end] + data[start:]
    if kind == 4:
        return data + draws.choice((b"\n", b" ", b"\x00", b"{}", data))
    return data[:start] + draws.choice((b" ", b"\n", b'"', b"[" * 5000, b"9" * 400, b"null", b"\\u0000")) + data[start:]


def _change_values(data: bytes, draws: random.Random) -> bytes:
    try:
        document = json.loads(data)
    except ValueError:
        return _change_bytes(data, draws)
    return _write(_changed(document, draws))


def _change_payload(data: bytes, draws: random.Random) -> bytes:
    """Change a statement within an envelope, and leave its signatures, or sign it as a stranger."""
    try:
        document = json.loads(data)
    except ValueError:
        return _change_bytes(data, draws)
    envelopes = list(_envelopes(document))
    if not envelopes:
        return _change_bytes(data, draws)
    envelope = draws.choice(envelopes)
    payload = _write(_changed(json.loads(base64.b64decode(envelope["payload"])), draws))
    envelope["payload"] = base64.b64encode(payload).decode()
    if draws.random() < 0.5:
        envelope |= Envelope.sign(PAYLOAD_TYPE, payload, STRANGER).to_document()
    return _write(document)


def _envelopes(document: Any) -> Iterator[dict[str, Any]]:
    if isinstance(document, dict):
        if "payload" in document:
            yield document
        document = list(document.values())
    if isinstance(document, list):
        for item in document:
            yield from _envelopes(item)


def _changed(value: Any, draws: random.Random) -> Any:
    """Return a JSON value with one of the values in it changed."""
    if isinstance(value, dict) and value:
        name = draws.choice(list(value))
        kind = draws.randrange(8)
        rest = {other: item for other, item in value.items() if other != name}
        if kind == 0:
            return rest
        if kind == 1:
            return {**rest, f"{name}x": value[name]}
        return {**value, name: _changed(value[name], draws)}
    if isinstance(value, list) and value:
        place = draws.randrange(len(value))
        kind = draws.randrange(5)
        if kind == 0:
            return value[:place] + value[place + 1 :]
        if kind == 1:
            return [*value, value[place]]
        return [*value[:place], _changed(value[place], draws), *value[place + 1 :]]
    if isinstance(value, str) and value and draws.random() < 0.7:
        place = draws.randrange(len(value))
        return value[:place] + draws.choice("0aA=+/ é\x00") + value[place + 1 :]
    if isinstance(value, int) and not isinstance(value, bool) and draws.random() < 0.7:
        return value + draws.choice((-1, 1, 2**31, -(2**63), 0.5))
    return draws.choice((None, True, 0, -1, 1.5, "", [], {}, [[]], "x" * 1000))


def _write(value: Any) -> bytes:
    try:
        return canonical_json(value)
    except InvalidProof:
        return json.dumps(value).encode()
