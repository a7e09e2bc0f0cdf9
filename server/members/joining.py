"""The joining service: whoever has an invitation gets its first certificate here, over TLS on a port of its own."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from cryptography.hazmat.primitives.asymmetric import ec

from fedmunkey.common.errors import InvalidIdentity, InvalidProof
from fedmunkey.common.identities.identity import Identity, certificate_pem
from fedmunkey.common.identities.invitation import SIGNING_CONTEXT
from fedmunkey.common.identities.member_keys import read_signing_request
from fedmunkey.common.identities.member_names import MemberRole
from fedmunkey.common.identities.signed_card import CardChain
from fedmunkey.common.proofs.signing.signing_key import PublicKey
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys
from fedmunkey.common.service.budgets import Allowance, Budgets
from fedmunkey.common.service.call_errors import ending
from fedmunkey.common.settings.addresses import network_of, split_address
from fedmunkey.protos import membership_pb2, membership_pb2_grpc
from fedmunkey.server.connections.listening import listen
from fedmunkey.server.connections.places import Places
from fedmunkey.server.connections.relay import Relay
from fedmunkey.server.connections.server_credentials import server_credentials, stranger_options
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.authority import CertificateAuthority
from fedmunkey.server.members.register import MemberRegister

ATTEMPTS = Allowance(at_once=30, a_second=0.5)
"""Attempts to join from one address, good or not."""

STRANGERS, OF_AN_ADDRESS = 32, 16
"""Connections at once; whoever joins asks once."""

_LARGEST_MESSAGE = 64 * 2**10
_AT_ONCE = 4
_WAITING = 64
_SERVER_OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", _LARGEST_MESSAGE),
    *stranger_options(),
    # Whoever joins asks once.
    ("grpc.max_connection_idle_ms", 5_000),
    ("grpc.max_connection_age_ms", 30_000),
    ("grpc.max_connection_age_grace_ms", 5_000),
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Joining:
    """How a member joins, and what it touches.

    `log_key` is handed to members, and so are the `cards`, versions of the federation card. A site is registered in
    the ledger, and its signing key is added to the coordinator's file of trusted keys (`trust`) if that is there.
    """

    register: MemberRegister
    ledger: Ledger
    authority: CertificateAuthority
    log_key: PublicKey
    trust: Path
    cards: Callable[[], CardChain] = CardChain

    def join(self, message: membership_pb2.JoinRequest) -> membership_pb2.JoinResponse:
        """Have a member join; asked again by the same, it does again what an interruption may have left undone.

        Raises `InvalidIdentity` if the invitation or the request for a certificate is not good. Raises `InvalidProof`
        if a site's signing key is missing, not its own or another's already.
        """
        # Before anything is computed, locked or written for somebody whom nobody has invited.
        self.register.check_invitation(message.token, message.name, _role_of(message))
        role, key, signing = read_join_request(message)
        site = signing is not None
        # Another that joins at the same moment would otherwise write the file without this one's key.
        with TrustedKeys.held(self.trust):
            keys = self._keys_with(message.name, signing) if signing is not None else None
            certificate = self.register.join(message.token, message.name, role, key, self.authority)
            if keys is not None:
                keys.write(self.trust)
        if site:
            self.ledger.register(message.name)
        _log.warning("%s %s has joined the federation", role, message.name)
        return membership_pb2.JoinResponse(
            certificate=certificate_pem(certificate),
            log_key=self.log_key.raw,
            signing_key_trusted=site and self.trust.exists(),
            cards=[signed.envelope.to_bytes() for signed in self.cards().cards],
        )

    def _keys_with(self, name: str, key: PublicKey) -> TrustedKeys | None:
        """Return the trusted keys with a site's, or None if there is nothing to write."""
        if not self.trust.exists():
            return None
        keys = TrustedKeys.read(self.trust)
        same = [known for known in keys.of(Role.SITE, name) if known.key == key and known.revoked is None]
        return None if same else keys.add(TrustedKey(name, Role.SITE, key))


def read_join_request(
    message: membership_pb2.JoinRequest,
) -> tuple[MemberRole, ec.EllipticCurvePublicKey, PublicKey | None]:
    """Return the role, the key to certify and the key with which a site signs, None for an officer.

    Raises `InvalidIdentity` if there is no such role, or the request for a certificate is none or was not signed with
    its key, and `InvalidProof` if a site's signing key is missing or the site does not hold it.
    """
    role = _role_of(message)
    key = read_signing_request(message.signing_request)
    if role is not MemberRole.SITE:
        return role, key, None
    signing = PublicKey(message.signing_key)
    if not signing.verifies(message.signing_proof, SIGNING_CONTEXT + message.signing_request):
        raise InvalidProof("the site does not hold the signing key that it sends; join again with the key's file")
    return role, key, signing


def _role_of(message: membership_pb2.JoinRequest) -> MemberRole:
    try:
        return MemberRole(message.role)
    except ValueError:
        raise InvalidIdentity("the invitation was altered: it is for another name or role; ask for another") from None


class JoiningServicer(membership_pb2_grpc.JoiningServicer):
    """Answers calls with what `Joining` does."""

    def __init__(self, joining: Joining, attempts: Budgets, origin: Callable[[str], str]) -> None:
        self._joining = joining
        self._attempts = attempts
        self._origin = origin

    def Join(self, message: membership_pb2.JoinRequest, context: Any) -> Any:  # noqa: N802
        """Have a member join."""
        wait = self._attempts.spend(network_of(self._origin(context.peer())))
        if wait:
            reason = f"too many attempts to join from one address; try again in {math.ceil(wait)} seconds"
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, reason)
        return _answer(context, lambda: self._joining.join(message))


class JoiningServer:
    """Lets members join at an address until it is stopped.

    Port 0 takes one that is free; by the coordinator's identity members know it. So many `attempts` may come from one
    address. Raises `InvalidSetting` if the address
    is not of the form `host:port`, is in use or not this machine's.
    """

    def __init__(self, joining: Joining, address: str, identity: Identity, *, attempts: Allowance = ATTEMPTS) -> None:
        host, port = split_address(address)
        self._relay = Relay(listen(host, port, "--joining-address"), Places(strangers=STRANGERS, each=OF_AN_ADDRESS))
        self.address = f"{host}:{self._relay.port}"
        self._threads = ThreadPoolExecutor(_AT_ONCE, "joining")
        self._server = grpc.server(self._threads, options=_SERVER_OPTIONS, maximum_concurrent_rpcs=_WAITING)
        membership_pb2_grpc.add_JoiningServicer_to_server(  # type: ignore[no-untyped-call]
            JoiningServicer(joining, Budgets(attempts), self._relay.origin), self._server
        )
        credentials = server_credentials(identity, ask_members=False)
        self._port = self._server.add_secure_port("127.0.0.1:0", credentials)

    def __enter__(self) -> Self:
        self._server.start()
        self._relay.start(self._port)
        return self

    def __exit__(
        self, exception: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.stop(grace=2.0).wait()
        self._relay.stop()
        self._threads.shutdown()


def _answer(context: Any, call: Callable[[], Any]) -> Any:
    """Return what a call returns; end the RPC with a status and one line if it fails."""
    try:
        return call()
    except Exception as error:
        if isinstance(error, InvalidIdentity | InvalidProof):
            _log.warning("somebody was refused who would join: %s", error)
        context.abort(*ending(error, "joining service"))
    raise AssertionError("abort raises")
