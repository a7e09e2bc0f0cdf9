"""What a requester signs: who asks for what to be forgotten, in which federation, and until when.

The references themselves stay outside: the statement holds their digest, so that it is short for a million records and
a certificate that is shown to others names none. Whoever has the request compares (`RequestTerms.check_describes`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property

from fedmunkey.common.deletions.words import (
    FORMER_OFFICER,
    OFFICER,
    DeletionRequest,
    Records,
    Subject,
    Target,
    requester_of,
)
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.signing.canonical import canonical_json, take
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.signing.statements import Statement, read_envelope, read_time, write_time

PREDICATE_TYPE = "urn:fedmunkey:deletion-request:v1"
CLOCK_SKEW_SECONDS = 300.0
"""How far a requester's clock may be ahead of the one that checks."""

MAXIMUM_DAYS = 366
"""The longest that a request may live: whoever gets hold of one can have it carried out until it expires."""

KINDS = ("records", "subject", "site")


@dataclass(frozen=True)
class RequestTerms:
    """What a signed request says.

    `federation` is `FederationSecret.federation_id`. Of the target there are its kind (`records`, `subject` or
    `site`), its site (empty where it addresses every one), how many references it has and its 32-byte digest
    (`target_digest`). Sites may carry the request out from `issued` to before `expires`.
    """

    request_id: str
    requester: str
    federation: str
    kind: str
    site: str
    count: int
    target: bytes
    issued: datetime
    expires: datetime

    def check_describes(self, request: DeletionRequest) -> None:
        """Check that a request asks for exactly this; raises `InvalidProof` if it was altered."""
        kind, site, references = _parts(request.target)
        for what, signed, found in (
            ("request id", self.request_id, request.request_id),
            ("requester", self.requester, request.requester),
            ("target", (self.kind, self.site, self.count), (kind, site, len(references))),
            ("target", self.target, target_digest(request.target)),
        ):
            if signed != found:
                raise InvalidProof(f"altered: the {what} is not the one that the requester signed")

    def check_time(self, now: datetime) -> None:
        """Check that the request may be carried out now; the requester's clock may be ahead by `CLOCK_SKEW_SECONDS`.

        Raises `InvalidProof` if it has expired, is dated in the future, or lives longer than `MAXIMUM_DAYS`.
        """
        if self.expires - self.issued > timedelta(days=MAXIMUM_DAYS):
            raise InvalidProof(
                f"valid for too long: a request may be carried out for {MAXIMUM_DAYS} days, this one until "
                f"{write_time(self.expires)}; sign it again"
            )
        if now >= self.expires:
            raise InvalidProof(f"expired: the request could be carried out until {write_time(self.expires)}")
        if (self.issued - now).total_seconds() > CLOCK_SKEW_SECONDS:
            raise InvalidProof(
                f"dated in the future: the request was issued on {write_time(self.issued)}; check clocks"
            )


def target_digest(target: Target) -> bytes:
    """Return the 32-byte digest that stands for a target."""
    kind, site, references = _parts(target)
    head = canonical_json({"kind": kind, "site": site, "type": "urn:fedmunkey:target:v1"})
    return hashlib.sha256(head + b"".join(references)).digest()


def sign_request(
    request: DeletionRequest, key: SigningKey, federation: str, *, issued: datetime, expires: datetime
) -> DeletionRequest:
    """Return a request with its requester's signature; times are kept to the second."""
    kind, site, references = _parts(request.target)
    predicate = {
        "requestId": request.request_id,
        "requester": request.requester,
        "federation": federation,
        "site": site,
        "count": len(references),
        "issued": write_time(issued),
        "expires": write_time(expires),
    }
    envelope = Statement(kind, target_digest(request.target), PREDICATE_TYPE, predicate).sign(key)
    return replace(request, signature=envelope.to_bytes())


def read_terms(envelope: Envelope) -> RequestTerms:
    """Read what an envelope says about a request, without checking who signed it; raises `InvalidProof`."""
    statement = Statement.of(envelope, PREDICATE_TYPE)
    request_id, requester, federation, site, count, issued, expires = take(
        statement.predicate,
        "a signed request",
        requestId=str,
        requester=str,
        federation=str,
        site=str,
        count=int,
        issued=str,
        expires=str,
    )
    if statement.subject not in KINDS or not request_id or not requester or count < 0:
        raise InvalidProof("a signed request is not one that this version knows")
    terms = RequestTerms(
        request_id=request_id,
        requester=requester_of(requester),
        federation=federation,
        kind=statement.subject,
        site=site,
        count=count,
        target=statement.digest,
        issued=read_time(issued),
        expires=read_time(expires),
    )
    if terms.expires <= terms.issued:
        raise InvalidProof("a signed request expires before it is issued")
    return terms


@dataclass(frozen=True)
class OpenedRequest:
    """A request with what its requester signed, opened once where it comes in and handed on from there.

    Who signed it is not checked. The envelope is there where the signature can be read, the terms where they describe
    the request; otherwise `fault` says why they do not: unsigned, altered, or what cannot be read.
    """

    request: DeletionRequest
    envelope: Envelope | None = None
    terms: RequestTerms | None = None
    fault: str = ""

    @classmethod
    def of(cls, request: DeletionRequest) -> OpenedRequest:
        """Open a request; one that bears no signature, or a wrong one, is opened as well."""
        if not request.signature:
            return cls(request, fault="unsigned: the request bears no signature")
        envelope = None
        try:
            envelope = read_envelope(request.signature)
            terms = read_terms(envelope)
            terms.check_describes(request)
        except InvalidProof as error:
            return cls(request, envelope, fault=str(error))
        return cls(request, envelope, terms)

    def signed(self) -> tuple[Envelope, RequestTerms]:
        """Return the envelope and the terms; raises `InvalidProof` if the request does not bear both."""
        if self.envelope is None or self.terms is None:
            raise InvalidProof(self.fault)
        return self.envelope, self.terms

    @property
    def genuine(self) -> bool:
        """Whether the request is the one that its digest stands for, and not an altered copy with its signature."""
        return self.terms is not None or not self.request.signature

    @cached_property
    def digest(self) -> bytes:
        """The 32 bytes by which receipts name the request: SHA-256 of what was signed.

        A request that bears no signature, or none that can be read, has a digest of its own contents instead.
        """
        if self.envelope is not None:
            return hashlib.sha256(self.envelope.payload).digest()
        kind, site, _ = _parts(self.request.target)
        requester = self.request.requester
        unsigned = {
            "type": "urn:fedmunkey:unsigned-request:v1",
            "requestId": self.request.request_id,
            "requester": FORMER_OFFICER if requester == OFFICER else requester,
            "kind": kind,
            "site": site,
            "target": target_digest(self.request.target).hex(),
        }
        return hashlib.sha256(canonical_json(unsigned)).digest()


def signature_digest(signature: bytes) -> bytes | None:
    """Return the digest of a request by its signature alone; None if it bears none, or none that can be read."""
    try:
        return hashlib.sha256(read_envelope(signature).payload).digest()
    except InvalidProof:
        return None


def _parts(target: Target) -> tuple[str, str, list[bytes]]:
    if isinstance(target, Records):
        return "records", target.site, sorted(target.references)
    if isinstance(target, Subject):
        return "subject", "", [target.reference]
    return "site", target.site, []
