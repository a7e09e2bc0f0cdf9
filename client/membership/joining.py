"""How a member joins a federation: its key is made here, and only a request for a certificate leaves.

Each step can be done again. An attempt that was interrupted leaves the key behind, with which the next one gets the
same certificate; the certificate is written last.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography.exceptions import InvalidSignature

from fedmunkey.client.membership.site_card import MemberCards, Taken
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import InvalidIdentity, InvalidProof
from fedmunkey.common.failpoints import Failpoint, hit
from fedmunkey.common.identities import Identity
from fedmunkey.common.identities.identity import CA_FILE, CERTIFICATE_FILE, KEY_FILE, certificate_pem, parse_certificate
from fedmunkey.common.identities.invitation import SIGNING_CONTEXT, Invitation
from fedmunkey.common.identities.member_keys import make_key, make_signing_request
from fedmunkey.common.identities.member_names import COORDINATOR, member_of
from fedmunkey.common.identities.signed_card import CARDS_FOLDER, CardChain
from fedmunkey.common.private_files import make_private_folder, replace_file
from fedmunkey.common.proofs.signing.signing_key import PublicKey, SigningKey
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys
from fedmunkey.common.service.call_errors import explain
from fedmunkey.common.service.secure_connection import own_machine_options
from fedmunkey.protos import membership_pb2
from fedmunkey.protos.membership_pb2_grpc import JoiningStub

_SECONDS = 30.0
_WAY_OUT = "start it with munkey-server serve --joining-address, then join again"


@dataclass(frozen=True)
class Joined:
    """What came of it.

    `log_key` is the coordinator's, `signing_key_trusted` says whether the coordinator trusts the key with which a site
    signs, and `officers` is how many officers' keys a site trusts. `cards` are the versions of the federation card.
    """

    identity: Identity
    log_key: PublicKey
    signing_key_trusted: bool
    officers: int
    cards: CardChain


def join(invitation: Invitation, folder: Path, site: SiteFolder | None) -> Joined:
    """Join a federation.

    The identity is to lie in `folder`, which is made if it is not there; `site` is None for an officer. Raises
    `InvalidIdentity` if the folder holds an identity of another authority, name or role, or the service is not the one
    of the invitation's authority, or it refuses the invitation. Raises `InvalidProof` if the site's trusted keys name
    another log, its key cannot be used, or a federation card is not the authority's. Raises `ServiceUnavailable` if the
    service cannot be reached.
    """
    if (folder / CERTIFICATE_FILE).exists():
        raise InvalidIdentity(
            f"{folder} holds an identity already, and it is never overwritten; renew it with munkey-client rotate, "
            "or move that folder away and join again"
        )
    make_private_folder(folder)
    key = make_key(folder / KEY_FILE)
    hit(Failpoint.JOIN_KEY_MADE)
    request = make_signing_request(key, invitation.role, invitation.name)
    message = membership_pb2.JoinRequest(
        token=invitation.token, signing_request=request, name=invitation.name, role=invitation.role.value
    )
    signing = None if site is None else _signing_key(site)
    if signing is not None:
        message.signing_key = signing.public.raw
        message.signing_proof = signing.sign(SIGNING_CONTEXT + request)
    answer = _ask(invitation, message)
    hit(Failpoint.JOIN_ISSUED)
    certificate = parse_certificate(answer.certificate, "what the coordinator sent")
    try:
        certificate.verify_directly_issued_by(invitation.authority)
        sound = certificate.public_key() == key.public_key()
    except (ValueError, TypeError, InvalidSignature):
        sound = False
    if not sound or member_of(certificate) != (invitation.role, invitation.name):
        raise InvalidIdentity("the coordinator sent a certificate of another key, member or authority; tell its owner")
    log_key = PublicKey(answer.log_key)
    cards = MemberCards(folder if site is None else site.path, folder)
    # Before anything is trusted: what is there of another authority's is in the way.
    chain = _known(cards, invitation).follow(answer.cards, invitation.authority)
    officers = 0 if site is None or signing is None else _trust(site, invitation.name, signing.public, log_key)
    replace_file(folder / CA_FILE, certificate_pem(invitation.authority))
    cards.keep(chain, Taken.JOINED, utc_now())
    replace_file(folder / CERTIFICATE_FILE, certificate_pem(certificate))
    return Joined(Identity.read(folder), log_key, answer.signing_key_trusted, officers, chain)


def _known(cards: MemberCards, invitation: Invitation) -> CardChain:
    """Return the versions of the card that a folder has from an earlier membership."""
    try:
        return CardChain.read(cards.folder, invitation.authority)
    except InvalidProof as error:
        raise InvalidIdentity(
            f"{error}; move {cards.folder / CARDS_FOLDER} away if it is another federation's"
        ) from None


def _ask(invitation: Invitation, message: membership_pb2.JoinRequest) -> membership_pb2.JoinResponse:
    address = invitation.address
    # The service shows its own certificate; the caller has none yet, only the token.
    credentials = grpc.ssl_channel_credentials(certificate_pem(invitation.authority))
    with grpc.secure_channel(address, credentials, options=own_machine_options(address)) as channel:
        try:
            stub = JoiningStub(channel)  # type: ignore[no-untyped-call]
            response: membership_pb2.JoinResponse = stub.Join(message, timeout=_SECONDS)
        except grpc.RpcError as error:
            raise explain(
                error,
                f"the joining service at {address}",
                _WAY_OUT,
                refused=InvalidIdentity,
                seconds=_SECONDS,
                find_fault=lambda details: _fault(address, details),
                nobody=f"nobody joins at {address}; ask for an invitation with the address of --joining-address",
            ) from None
    return response


def _fault(address: str, details: str) -> str:
    """Return why no connection comes about; raises `InvalidIdentity` if another coordinator is there."""
    if "WRONG_VERSION" in details:
        return f"does not speak TLS: {_WAY_OUT}"
    if "andshake failed" in details:
        raise InvalidIdentity(
            f"the service at {address} is not the coordinator that made this invitation: its certificate is of another "
            "authority, or of another host; nothing was sent, ask who gave you the invitation"
        )
    return ""


def _signing_key(site: SiteFolder) -> SigningKey:
    """Return the key with which a site signs requests and receipts; one is made if there is none."""
    if not site.signing_key.exists():
        SigningKey.generate().write_pair(site.signing_key)
    return SigningKey.read(site.signing_key)


def _trust(site: SiteFolder, name: str, own: PublicKey, log: PublicKey) -> int:
    """Have a site trust its own key and the log's; return how many requesters' keys it trusts.

    Requesters are none of the coordinator's business: it could otherwise make one up and have anything deleted.
    """

    def with_both(keys: TrustedKeys) -> TrustedKeys:
        """Add the site's key and the log's where they are missing; raises if another log is trusted."""
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
        return keys

    keys = TrustedKeys.change(site.trust, with_both)
    return sum(officer.revoked is None for officer in keys.of(Role.OFFICER))
