"""What the coordinator shows on its TLS ports, and whom it lets in."""

from __future__ import annotations

import logging

import grpc

from fedmunkey.common.errors import InvalidIdentity
from fedmunkey.common.identities.identity import Identity


def stranger_options() -> list[tuple[str, int]]:
    """Return the options of a port that strangers reach, who are few (`relay`)."""
    # gRPC waits two minutes for somebody who does not say who it is.
    return [("grpc.server_handshake_timeout_ms", 5_000)]


_log = logging.getLogger(__name__)


def server_credentials(identity: Identity, *, ask_members: bool) -> grpc.ServerCredentials:
    """Return credentials that follow the coordinator's identity's files, so that a renewal needs no restart.

    With `ask_members`, only connections with a certificate of the federation's authority are taken.
    """
    shown = identity

    def follow() -> grpc.ServerCertificateConfiguration | None:
        """Return what to show from now on if the files have changed; None to go on as before."""
        # gRPC asks at each handshake, in one thread at a time.
        nonlocal shown
        try:
            found = Identity.read(identity.folder)
        except InvalidIdentity as error:
            _log.warning("%s", error)
            return None
        if found.pem == shown.pem:
            return None
        shown = found
        return _configuration(found)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(identity), follow, require_client_authentication=ask_members
    )


def _configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
    ca, certificate, key = identity.pem
    return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=ca)
