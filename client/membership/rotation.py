"""How a member renews its key and its certificate, under the certificate that it has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from fedmunkey.common.errors import InvalidIdentity
from fedmunkey.common.failpoints import Failpoint, hit
from fedmunkey.common.identities import Identity, MemberRole
from fedmunkey.common.identities.identity import parse_certificate, read_certificate
from fedmunkey.common.identities.member_keys import make_signing_request, read_key
from fedmunkey.common.identities.member_names import member_of
from fedmunkey.common.identities.rotation import stage_key, take_over
from fedmunkey.common.private_files import locked_folder
from fedmunkey.common.service.call_errors import explain
from fedmunkey.common.service.secure_connection import Connection
from fedmunkey.common.settings.addresses import split_address
from fedmunkey.protos import membership_pb2
from fedmunkey.protos.membership_pb2_grpc import MembershipStub

_SECONDS = 30.0


def rotate(folder: Path, address: str) -> Identity:
    """Get a certificate for a fresh key, put both in place, and let the old certificate end.

    The old one is good until the new one is first used, which the last step does. Interrupted at any moment, the
    folder holds an identity that works, and another rotation goes on from there.

    Raises `InvalidIdentity` if the identity cannot be used, is the coordinator's, or the service refuses it. Raises
    `ServiceUnavailable` if the service cannot be reached.
    """
    with _held(folder):
        return _rotate(folder, address)


def _rotate(folder: Path, address: str) -> Identity:
    old = Identity.read(folder)
    if old.role is MemberRole.COORDINATOR:
        raise InvalidIdentity(f"{folder} is the coordinator's identity; renew it with munkey-server renew")
    split_address(address)
    key = stage_key(folder)
    hit(Failpoint.ROTATE_KEY_MADE)
    certificate = _ask(old, address, key)
    hit(Failpoint.ROTATE_ISSUED)
    _check(certificate, old)
    fresh = take_over(folder, certificate)
    hit(Failpoint.ROTATE_IN_PLACE)
    _ask(fresh, address, read_key(fresh.key_file)[0])
    return fresh


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Let one rotation at a time have a folder, if it is one at all."""
    with locked_folder(folder) if folder.is_dir() else nullcontext():
        yield


def _check(certificate: x509.Certificate, old: Identity) -> None:
    try:
        certificate.verify_directly_issued_by(read_certificate(old.ca_file))
    except (ValueError, TypeError, InvalidSignature):
        raise InvalidIdentity("the service sent a certificate of another authority; nothing was changed") from None
    if member_of(certificate) != (old.role, old.name):
        raise InvalidIdentity("the service sent a certificate of another member; nothing was changed")


def _ask(identity: Identity, address: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    message = membership_pb2.RotateRequest(signing_request=make_signing_request(key, identity.role, identity.name))
    connection = Connection(address, [], identity, MembershipStub)
    try:
        answer = connection.stub().Rotate(message, timeout=_SECONDS)
    except grpc.RpcError as error:
        raise explain(
            error,
            f"the deletion service at {address}",
            "the identity stays as it is, rotate again later",
            refused=InvalidIdentity,
            seconds=_SECONDS,
            find_fault=connection.fault,
            nobody=f"the service at {address} issues no certificates; name the coordinator's",
        ) from None
    finally:
        connection.close()
    return parse_certificate(answer.certificate, "what the service sent")
