"""in-toto Statements, version 1: what a signer says about one subject, as canonical JSON in a DSSE envelope."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fedmunkey.common.deletions.limits import LINE_CHARACTERS, is_line
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.signing.authority_key import AuthoritySigningKey
from fedmunkey.common.proofs.signing.canonical import canonical_json, parse_canonical, read_hex, take
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.signing_key import SigningKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Statement:
    """What is said about one subject: its name, its 32-byte SHA-256, and a JSON-ready predicate.

    `predicate_type` is the URI that says how to read the predicate.
    """

    subject: str
    digest: bytes
    predicate_type: str
    predicate: dict[str, Any]

    def sign(self, *keys: SigningKey | AuthoritySigningKey) -> Envelope:
        """Return the statement in an envelope; the same statement and keys always give the same bytes.

        Raises `InvalidProof` if a text in it is not one printable line.
        """
        _check_lines(self.predicate)
        document = {
            "_type": _STATEMENT_TYPE,
            "subject": [{"name": self.subject, "digest": {"sha256": self.digest.hex()}}],
            "predicateType": self.predicate_type,
            "predicate": self.predicate,
        }
        return Envelope.sign(PAYLOAD_TYPE, canonical_json(document), *keys)

    @classmethod
    def of(cls, envelope: Envelope, predicate_type: str) -> Statement:
        """Read an envelope's payload without checking its signatures.

        Raises `InvalidProof` if it is not canonical, is no Statement about one subject, says something of another
        type, or holds a text that is not one printable line.
        """
        kind, subjects, said, predicate = take(
            parse_canonical(envelope.payload, "a statement"),
            "a statement",
            _type=str,
            subject=list,
            predicateType=str,
            predicate=dict,
        )
        if kind != _STATEMENT_TYPE or said != predicate_type or len(subjects) != 1:
            raise InvalidProof(f"a statement is not one of {predicate_type} about one subject")
        name, digests = take(subjects[0], "a statement's subject", name=str, digest=dict)
        (digest,) = take(digests, "a subject's digest", sha256=str)
        _check_lines(predicate)
        return cls(name, read_hex(digest, "a subject's digest"), predicate_type, predicate)


def _check_lines(said: Any) -> None:
    """Check every text of what is said: whoever reads it later must not take a part of it for a line of its own."""
    if isinstance(said, dict):
        for value in said.values():
            _check_lines(value)
    elif isinstance(said, str) and not is_line(said):
        raise InvalidProof(
            f"the text {said[:40]!r} is not one line of at most {LINE_CHARACTERS} printable characters; "
            "what is signed holds no other"
        )


def read_envelope(data: bytes) -> Envelope:
    """Read the bytes of an envelope around a Statement; raises `InvalidProof`."""
    return Envelope.from_bytes(data, PAYLOAD_TYPE)


def envelope_of(document: Any) -> Envelope:
    """Read an envelope around a Statement that is part of a larger document; raises `InvalidProof`."""
    return Envelope.from_document(document, PAYLOAD_TYPE)


def write_time(time: datetime) -> str:
    """Write a time to the second, in UTC (RFC 3339)."""
    return time.astimezone(UTC).strftime(_TIME_FORMAT)


def read_time(text: str) -> datetime:
    """Read what `write_time` writes; raises `InvalidProof` for any other spelling."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or write_time(time) != text:
        raise InvalidProof("a time is not of the form 2026-01-31T23:59:59Z")
    return time
