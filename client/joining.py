"""How a member joins a federation: its key is made here, and only a request for a certificate leaves.

Each step can be done again. An attempt that was interrupted leaves the key behind, with which the next one gets the
same certificate; the certificate is written last.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography.exceptions import InvalidSignature

from client.site import SiteFolder
from common.deletion_channel import is_loopback, split_address
from common.errors import FedmunkeyError, InvalidIdentity, ServiceUnavailable
from common.failpoints import Failpoint, hit
from common.identities import Identity
from common.identities.enrolment import SIGNING_CONTEXT
from common.identities.identity import CA_FILE, CERTIFICATE_FILE, KEY_FILE, certificate_pem, parse_certificate
from common.identities.invitation import Invitation
from common.identities.keys import make_key, make_signing_request
from common.identities.member_names import COORDINATOR, member_of
from common.private_files import replace_file
from common.signing.keys import PublicKey, SigningKey
from common.trusted_keys import Role, TrustedKey, TrustedKeys
from protos import enrolment_pb2
from protos.enrolment_pb2_grpc import EnrolmentStub

_SECONDS = 30.0


@dataclass(frozen=True)
class Joined:
    """What came of it.

    Attributes
    ----------
    identity : Identity
        The member's.
    log_key : PublicKey
        With which the coordinator signs the heads of its log.
    signing_key_trusted : bool
        Whether the coordinator trusts the key with which a site signs.
    officers : int
        Keys of requesters that a site's file of trusted keys has.
    """

    identity: Identity
    log_key: PublicKey
    signing_key_trusted: bool
    officers: int = 0


def join(invitation: Invitation, folder: Path, site: SiteFolder | None) -> Joined:
    """Join a federation.

    Parameters
    ----------
    invitation : Invitation
        The coordinator's.
    folder : Path
        Where the identity is to lie; made if it is not there.
    site : SiteFolder or None
        The folder of a site that joins; None for a requester.

    Raises
    ------
    InvalidIdentity
        If the folder holds an identity of another authority, name or role, or the service is not the one of the
        invitation's authority, or it refuses the invitation.
    InvalidProof
        If the site's trusted keys name another log, or its key cannot be used.
    ServiceUnavailable
        If the service cannot be reached.
    """
    if (folder / CERTIFICATE_FILE).exists():
        raise InvalidIdentity(
            f"{folder} holds an identity already, and it is never overwritten; renew it with munkey-client rotate, "
            "or move that folder away and join again"
        )
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    key = make_key(folder / KEY_FILE)
    hit(Failpoint.JOIN_KEY_MADE)
    request = make_signing_request(key, invitation.role, invitation.name)
    message = enrolment_pb2.EnrolRequest(
        token=invitation.token, signing_request=request, name=invitation.name, role=invitation.role.value
    )
    signing = None if site is None else _signing_key(site)
    if signing is not None:
        message.signing_key = signing.public.raw
        message.signing_proof = signing.sign(SIGNING_CONTEXT + request)
    answer = _enrol(invitation, message)
    hit(Failpoint.JOIN_ENROLLED)
    certificate = parse_certificate(answer.certificate, "what the enrolment service sent")
    try:
        certificate.verify_directly_issued_by(invitation.authority)
        sound = certificate.public_key() == key.public_key()
    except (ValueError, TypeError, InvalidSignature):
        sound = False
    if not sound or member_of(certificate) != (invitation.role, invitation.name):
        raise InvalidIdentity(
            "the enrolment service sent a certificate of another key, member or authority; tell its owner"
        )
    log_key = PublicKey(answer.log_key)
    officers = 0 if site is None or signing is None else _trust(site, invitation.name, signing.public, log_key)
    replace_file(folder / CA_FILE, certificate_pem(invitation.authority))
    replace_file(folder / CERTIFICATE_FILE, certificate_pem(certificate))
    return Joined(Identity.read(folder), log_key, answer.signing_key_trusted, officers)


def _enrol(invitation: Invitation, message: enrolment_pb2.EnrolRequest) -> enrolment_pb2.EnrolResponse:
    address = invitation.address
    host, _ = split_address(address)
    options = [("grpc.enable_http_proxy", 0)] if is_loopback(host) else []
    # The service shows its own certificate; the caller has none yet, only the token.
    credentials = grpc.ssl_channel_credentials(certificate_pem(invitation.authority))
    with grpc.secure_channel(address, credentials, options=options) as channel:
        try:
            stub = EnrolmentStub(channel)  # type: ignore[no-untyped-call]
            response: enrolment_pb2.EnrolResponse = stub.Enrol(message, timeout=_SECONDS)
        except grpc.RpcError as error:
            raise _explain(error, address) from None
    return response


def _explain(error: Any, address: str) -> FedmunkeyError:
    code, details = error.code(), " ".join((error.details() or "").split())
    if code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT):
        return InvalidIdentity(details)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return InvalidIdentity(
            f"nobody enrols at {address}; ask for an invitation with the enrolment service's address"
        )
    if code is grpc.StatusCode.UNAVAILABLE and "andshake failed" in details and "WRONG_VERSION" not in details:
        return InvalidIdentity(
            f"the service at {address} is not the coordinator that made this invitation: its certificate is of another "
            "authority, or of another host; nothing was sent, ask who gave you the invitation"
        )
    fault = "cannot be reached" if code is grpc.StatusCode.UNAVAILABLE else f"failed ({code.name}: {details})"
    if "WRONG_VERSION" in details:
        fault = "does not speak TLS"
    return ServiceUnavailable(
        f"the enrolment service at {address} {fault}: start it with munkey-server serve --enrolment-address, "
        "then join again"
    )


def _signing_key(site: SiteFolder) -> SigningKey:
    """Return the key with which a site signs requests and receipts; one is made if there is none."""
    if not site.signing_key.exists():
        SigningKey.generate().write_pair(site.signing_key)
    return SigningKey.read(site.signing_key)


def _trust(site: SiteFolder, name: str, own: PublicKey, log: PublicKey) -> int:
    """Have a site trust its own key and the log's; return how many requesters' keys it trusts.

    Requesters are none of the coordinator's business: it could otherwise make one up and have anything deleted.
    """
    keys = TrustedKeys.read(site.trust) if site.trust.exists() else TrustedKeys()
    before = keys
    others = [known for known in keys.of(Role.LOG) if known.key != log and known.revoked is None]
    if others:
        raise InvalidIdentity(
            f"{site.trust} trusts another log, key {others[0].key.key_id[:16]}; the coordinator that you join has "
            f"{log.key_id[:16]}: ask why, then munkey-client trust revoke the one that is wrong"
        )
    known = {trusted.key for trusted in keys.keys}
    for holder, role, key in ((name, Role.SITE, own), (COORDINATOR, Role.LOG, log)):
        if key not in known:
            keys = keys.add(TrustedKey(holder, role, key))
    if keys != before:
        keys.write(site.trust)
    return sum(officer.revoked is None for officer in keys.of(Role.OFFICER))
