"""What there is to change of identities: a member's certificate, and the message with which one joins."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from fedmunkey.common.errors import InvalidIdentity
from fedmunkey.common.identities import MemberRole
from fedmunkey.common.identities.identity import certificate_pem, parse_certificate
from fedmunkey.common.identities.invitation import SIGNING_CONTEXT, new_token
from fedmunkey.common.identities.member_keys import make_signing_request, public_bytes
from fedmunkey.common.identities.member_names import member_of
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.protos import membership_pb2
from fedmunkey.server.members.authority import CertificateAuthority
from fedmunkey.server.members.joining import read_join_request
from tests.proof_case import SITES, START

Believe = Callable[[bytes], bool]
"""Raises `FedmunkeyError` if it does not believe bytes; returns whether they say what the original does not."""

Changeable = tuple[bytes, Believe]
"""What is believed as it is, and what believes or refuses a change of it."""


def changeable_identities() -> dict[str, Changeable]:
    """Return each by its name."""
    authority = CertificateAuthority.make("federation", START)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = authority.issue(key.public_key(), MemberRole.SITE, SITES[0], START)
    request = _join_request(key)
    return {
        "member's certificate": (certificate_pem(certificate), _believe_member(authority.certificate, certificate)),
        "joining": (request.SerializeToString(deterministic=True), _believe_joining(request)),
    }


def _believe_member(authority: x509.Certificate, original: x509.Certificate) -> Believe:
    def believe(data: bytes) -> bool:
        with warnings.catch_warnings():
            # A serial that is not positive, which a change may make, is refused by its signature.
            warnings.simplefilter("ignore")
            found = parse_certificate(data, "a certificate")
        try:
            found.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            raise InvalidIdentity("the authority did not sign it") from None
        # An ECDSA signature has a second spelling; what is signed has not.
        return found.tbs_certificate_bytes != original.tbs_certificate_bytes or member_of(found) != member_of(original)

    return believe


def _join_request(key: ec.EllipticCurvePrivateKey) -> membership_pb2.JoinRequest:
    asked, signing = make_signing_request(key, MemberRole.SITE, SITES[0]), SigningKey.generate()
    return membership_pb2.JoinRequest(
        token=new_token(),
        signing_request=asked,
        name=SITES[0],
        role=MemberRole.SITE.value,
        signing_key=signing.public.raw,
        signing_proof=signing.sign(SIGNING_CONTEXT + asked),
    )


def _believe_joining(original: membership_pb2.JoinRequest) -> Believe:
    expected = read_join_request(original)

    def believe(data: bytes) -> bool:
        message = membership_pb2.JoinRequest()
        try:
            message.ParseFromString(data)
        except DecodeError:
            # gRPC ends such a call before any of our code sees it.
            raise InvalidIdentity("no message") from None
        role, key, signing = read_join_request(message)
        # The register knows the invitation by its token, and by it the name and the role.
        if (message.token, message.name, role) != (original.token, original.name, expected[0]):
            raise InvalidIdentity("another invitation")
        return (public_bytes(key), signing) != (public_bytes(expected[1]), expected[2])

    return believe
