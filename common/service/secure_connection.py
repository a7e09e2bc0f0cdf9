"""A gRPC channel that shows a member's identity and follows its files; and what is wrong where it cannot connect."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from fedmunkey.common.errors import InvalidIdentity
from fedmunkey.common.identities import Identity, MemberRole
from fedmunkey.common.identities.identity import CERTIFICATE_FILE
from fedmunkey.common.settings.addresses import is_loopback, split_address

_PROBE_SECONDS = 2.0


def own_machine_options(address: str) -> list[tuple[str, Any]]:
    """Return options for a channel to an address: a proxy for the outside world cannot reach this machine.

    Raises `InvalidSetting` if the address is not of the form `host:port`.
    """
    host, _ = split_address(address)
    return [("grpc.enable_http_proxy", 0)] if is_loopback(host) else []


class Connection:
    """A channel to one address; safe for threads.

    Without an identity it is neither encrypted nor authenticated. `options` are gRPC's; `make_stub` makes of a channel
    what calls are made with.
    """

    def __init__(
        self,
        address: str,
        options: Sequence[tuple[str, Any]],
        identity: Identity | None,
        make_stub: Callable[[grpc.Channel], Any],
    ) -> None:
        self.address = address
        self._options = [*options, *own_machine_options(address)]
        self._identity = identity
        self._lock = threading.Lock()
        self._closed = False
        self._stamp = self._certificate_stamp()
        self._make_stub = make_stub
        self._channel = self._open()
        # Made with the channel: gRPC ends the process where a call is prepared on a channel that is closed.
        self._stub = make_stub(self._channel)

    @property
    def identity(self) -> Identity | None:
        """What it shows."""
        return self._identity

    def stub(self) -> Any:
        """Return what calls are made with; on another channel once a rotation replaced the identity's certificate.

        The channel of the identity before is closed, and with it streams that are being read from it.
        """
        with self._lock:
            if self._identity is not None and not self._closed and (stamp := self._certificate_stamp()) != self._stamp:
                self._identity = Identity.read(self._identity.folder)
                self._stamp = stamp
                self._channel.close()
                self._channel = self._open()
                self._stub = self._make_stub(self._channel)
            return self._stub

    def is_replaced(self) -> bool:
        """Return whether the identity's certificate was replaced since the channel was opened."""
        return self._certificate_stamp() != self._stamp

    def close(self) -> None:
        """Close the channel for good."""
        with self._lock:
            self._closed = True
            self._channel.close()

    def fault(self, details: str) -> str:
        """Return why no connection comes about, as far as can be told: empty where the service is simply not there.

        `details` is what gRPC says of an attempt that failed. Raises `InvalidIdentity` if one side speaks TLS and the
        other does not, or the service is not this federation's coordinator.
        """
        if "WRONG_VERSION_NUMBER" in details:
            raise InvalidIdentity(
                f"the service at {self.address} does not speak TLS, and this identity is shown over TLS only: "
                "start it with munkey-server serve --coordinator-dir, or name the address of one that was"
            )
        if "andshake failed" in details or "eer name" in details:
            raise InvalidIdentity(
                f"the service at {self.address} is not this federation's coordinator, or not by that name: its "
                "certificate is of another authority, has expired or has other hosts; nothing was sent"
            )
        # A service that turns a certificate away closes the connection, and how that reads depends on who is faster.
        if "Connection refused" in details or not _turns_away(self.address, self._identity):
            return ""
        if self._identity is None:
            raise InvalidIdentity(
                f"the service at {self.address} speaks TLS only: show this member's identity with --identity, "
                "--site-dir or --coordinator-dir, and get one with munkey-client join"
            )
        who = f"the certificate of {self._identity.role} {self._identity.name}"
        again = "renew" if self._identity.role is MemberRole.COORDINATOR else "join again with a new invitation"
        return f"does not take {who}: it expired or another authority signed it; {again}"

    def _open(self) -> grpc.Channel:
        if self._identity is None:
            return grpc.insecure_channel(self.address, options=self._options)
        return grpc.secure_channel(self.address, self._identity.channel_credentials(), options=self._options)

    def _certificate_stamp(self) -> tuple[int, int]:
        if self._identity is None:
            return (0, 0)
        try:
            found = (self._identity.folder / CERTIFICATE_FILE).stat()
        except OSError:
            # A folder that is being replaced is looked at again at the next call.
            return self._stamp
        return (found.st_ino, found.st_mtime_ns)


def _turns_away(address: str, identity: Identity | None) -> bool:
    """Return whether what listens there speaks TLS, and closes the connection once it has seen the certificate.

    Who it is itself does not matter here. It is asked twice: one that is about to end closes it too, and is gone then.
    """
    host, port = split_address(address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        if identity is not None:
            context.load_cert_chain(identity.certificate_file, identity.key_file)
        return all(_closes_at_once(host.strip("[]"), port, context) for _ in range(2))
    except (OSError, ValueError):
        return False


def _closes_at_once(host: str, port: int, context: ssl.SSLContext) -> bool:
    """Return whether a connection is closed after its handshake, before a first byte, as HTTP/2 begins with settings.

    Raises `OSError` if there is no handshake, or nothing after it in `_PROBE_SECONDS`.
    """
    with (
        socket.create_connection((host, port), _PROBE_SECONDS) as plain,
        context.wrap_socket(plain) as connection,
    ):
        try:
            return not connection.recv(1)
        except TimeoutError:
            raise
        except OSError:
            return True
