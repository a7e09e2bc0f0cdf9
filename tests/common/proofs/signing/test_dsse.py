from __future__ import annotations

import base64
from typing import Any

import pytest

from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.signing.canonical import canonical_json
from fedmunkey.common.proofs.signing.dsse import Envelope, pre_authentication_encoding
from fedmunkey.common.proofs.signing.signing_key import SigningKey

KIND = "http://example.com/HelloWorld"
FIRST, SECOND = SigningKey.from_seed(bytes(32)), SigningKey.from_seed(bytes([1] * 32))
FIRST_ID = FIRST.public.key_id
KEYS = {key.public.key_id: key.public for key in (FIRST, SECOND)}
SIGNED = Envelope.sign(KIND, b"hello world", FIRST, SECOND)


def test_what_is_signed_is_the_example_of_the_specification_and_lengths_are_of_bytes() -> None:
    example = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"

    assert pre_authentication_encoding(KIND, b"hello world") == example
    assert pre_authentication_encoding("é", b"\0\n") == b"DSSEv1 2 \xc3\xa9 2 \0\n"


def test_envelope_survives_its_bytes() -> None:
    found = Envelope.from_bytes(SIGNED.to_bytes(), KIND)

    found.verify(KEYS)
    assert found == SIGNED
    assert found.to_bytes() == SIGNED.to_bytes()
    assert Envelope.sign(KIND, b"hello world", FIRST, SECOND).to_bytes() == SIGNED.to_bytes()


def test_every_signature_must_be_by_a_trusted_key() -> None:
    with pytest.raises(InvalidProof, match="not trusted"):
        SIGNED.verify({FIRST.public.key_id: FIRST.public})


def test_signature_over_another_type_does_not_fit() -> None:
    moved = Envelope("http://example.com/GoodbyeWorld", SIGNED.payload, SIGNED.signatures)

    with pytest.raises(InvalidProof, match="does not fit"):
        moved.verify(KEYS)


def document(**changes: Any) -> bytes:
    return canonical_json({**SIGNED.to_document(), **changes})


SIGNATURE = base64.b64encode(bytes(64)).decode()


def signature(key_id: Any = FIRST_ID, sig: Any = SIGNATURE) -> dict[str, Any]:
    return {"keyid": key_id, "sig": sig}


@pytest.mark.parametrize(
    "data",
    [
        document(payloadType="text/plain"),
        document(payload="aGVsbG8gd29ybGR="),
        document(payload="aGVsbG8gd29ybGQ"),
        document(payload="aGVs bG8gd29ybGQ="),
        document(payload="_-8="),
        document(payload=1),
        document(extra=1),
        document(signatures=[]),
        document(signatures=[signature()] * 2),
        document(signatures=[signature(key_id=f"{number:064x}") for number in range(17)]),
        document(signatures=[signature(key_id="ABCD" * 16)]),
        document(signatures=[signature(key_id="")]),
        document(signatures=[signature(sig=base64.b64encode(bytes(63)).decode())]),
        document(signatures=[{**signature(), "alg": "none"}]),
        document(signatures=[{"sig": signature()["sig"]}]),
        document(signatures={}),
        SIGNED.to_bytes() + b"\n",
        b"[]",
    ],
)
def test_envelope_of_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidProof):
        Envelope.from_bytes(data, KIND)
