"""DSSE envelopes (Dead Simple Signing Envelope, version 1.0.2) with signatures of 64 bytes: Ed25519, or an authority's.

An envelope is kept as canonical JSON, so equal envelopes have equal bytes and nothing in one can be changed unnoticed.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.signing.authority_key import AuthorityPublicKey, AuthoritySigningKey
from fedmunkey.common.proofs.signing.canonical import canonical_json, parse_canonical, read_hex, take
from fedmunkey.common.proofs.signing.signing_key import SIGNATURE_BYTES, PublicKey, SigningKey

MAXIMUM_SIGNATURES = 16


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return what is signed: PAE of the DSSE protocol, section "Signature Definition"."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True)
class Signature:
    """One signature of an envelope.

    `key_id` is the SHA-256 of the public key, hexadecimal; the value has 64 bytes.
    """

    key_id: str
    value: bytes


@dataclass(frozen=True)
class Envelope:
    """A payload and its signatures.

    The payload type is a media type; there are 1 to `MAXIMUM_SIGNATURES`, of different keys.
    """

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]
    _bytes: bytes = field(default=b"", compare=False, repr=False)

    @classmethod
    def sign(cls, payload_type: str, payload: bytes, *keys: SigningKey | AuthoritySigningKey) -> Envelope:
        """Sign a payload with each of some keys."""
        message = pre_authentication_encoding(payload_type, payload)
        return cls(payload_type, payload, tuple(Signature(key.public.key_id, key.sign(message)) for key in keys))

    def countersign(self, key: SigningKey) -> Envelope:
        """Return the envelope with one more signature; raises `InvalidProof` if it has one by that key, or too many."""
        added = Envelope.sign(self.payload_type, self.payload, key).signatures
        return Envelope.from_document(
            replace(self, signatures=self.signatures + added).to_document(), self.payload_type
        )

    def verify(self, keys: Mapping[str, PublicKey] | Mapping[str, AuthorityPublicKey]) -> None:
        """Check every signature.

        `keys` are those that may sign, by their ids. Raises `InvalidProof` if a signature is wrong or by another key;
        no signature is left unchecked.
        """
        message = pre_authentication_encoding(self.payload_type, self.payload)
        for signature in self.signatures:
            key = keys.get(signature.key_id)
            if key is None:
                raise InvalidProof(
                    f"signed with key {signature.key_id[:16]}, which is not trusted for this or was changed"
                )
            if not key.verifies(signature.value, message):
                raise InvalidProof(f"what key {signature.key_id[:16]} signed was changed: its signature does not fit")

    def to_document(self) -> dict[str, Any]:
        """Return the envelope as JSON-ready data, by the field names of DSSE."""
        return {
            "payload": base64.b64encode(self.payload).decode(),
            "payloadType": self.payload_type,
            "signatures": [
                {"keyid": signature.key_id, "sig": base64.b64encode(signature.value).decode()}
                for signature in self.signatures
            ],
        }

    def to_bytes(self) -> bytes:
        """Return the envelope as canonical JSON."""
        return self._bytes or canonical_json(self.to_document())

    @classmethod
    def from_document(cls, document: Any, payload_type: str) -> Envelope:
        """Read what `to_document` returns.

        Raises `InvalidProof` if a field is missing, unknown or of the wrong form, the payload is of another type,
        base64 is not in its canonical form, there is no signature, or two are by the same key.
        """
        payload, kind, listed = take(document, "an envelope", payload=str, payloadType=str, signatures=list)
        if kind != payload_type:
            raise InvalidProof(f"an envelope holds something else than {payload_type}")
        signatures = []
        for item in listed[: MAXIMUM_SIGNATURES + 1]:
            key_id, value = take(item, "a signature", keyid=str, sig=str)
            read_hex(key_id, "a key's id")
            signatures.append(Signature(key_id, _decode(value)))
        if not 1 <= len(signatures) <= MAXIMUM_SIGNATURES:
            raise InvalidProof(f"an envelope has no signature, or more than {MAXIMUM_SIGNATURES}")
        if len({signature.key_id for signature in signatures}) < len(signatures):
            raise InvalidProof("an envelope has two signatures by one key")
        if any(len(signature.value) != SIGNATURE_BYTES for signature in signatures):
            raise InvalidProof(f"a signature has {SIGNATURE_BYTES} bytes")
        return cls(kind, _decode(payload), tuple(signatures))

    @classmethod
    def from_bytes(cls, data: bytes, payload_type: str) -> Envelope:
        """Read canonical JSON that `to_bytes` returned; raises `InvalidProof` for anything else."""
        found = cls.from_document(parse_canonical(data, "an envelope"), payload_type)
        # They are what `to_bytes` would make, and making them again costs more than checking a signature.
        return replace(found, _bytes=bytes(data))


def _decode(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = None
    # Several spellings may decode to the same bytes; one of them is canonical.
    if data is None or base64.b64encode(data).decode() != text:
        raise InvalidProof("an envelope holds text that is not canonical base64")
    return data
