"""Whether a site reaches its coordinator, over TLS, and whether both have the same time."""

from __future__ import annotations

import email.utils
import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from fedmunkey.common.clock import utc_now
from fedmunkey.common.identities import Identity
from fedmunkey.common.programs.doctor import Finding
from fedmunkey.common.settings.addresses import split_address

MOST_OFF = timedelta(seconds=10)
"""How far clocks may be apart; a SuperNode's signed calls carry the time, and are refused when it is far off."""

_SECONDS = 10.0


def unreachable(setting: str, address: str, identity: Identity) -> Iterator[Finding]:
    """Find that nobody with the coordinator's certificate answers at an address, to which a member shows its own."""
    host, port = split_address(address)
    trusted = _trusting(identity)
    try:
        with (
            socket.create_connection((host.strip("[]"), port), timeout=_SECONDS) as plain,
            trusted.wrap_socket(plain, server_hostname=host.strip("[]")),
        ):
            pass
    except OSError as error:
        yield Finding(f"{setting} = {address}: {_fault(error)}", _way_out(error, host), stops=False)


def clock_off(
    setting: str, address: str, identity: Identity, clock: Callable[[], datetime] = utc_now
) -> Iterator[Finding]:
    """Find that this machine's clock and the coordinator's are apart, by the date of an answer over HTTPS."""
    host, port = split_address(address)
    connection = http.client.HTTPSConnection(host.strip("[]"), port, timeout=_SECONDS, context=_trusting(identity))
    try:
        before = clock()
        connection.request("GET", "/health")
        said = connection.getresponse().headers.get("Date")
        after = clock()
    except (OSError, http.client.HTTPException):
        # Why it does not answer is found elsewhere.
        return
    finally:
        connection.close()
    if said is None:
        return
    # It says whole seconds, those that have begun.
    off = before + (after - before) / 2 - email.utils.parsedate_to_datetime(said).astimezone(UTC)
    if abs(off) > MOST_OFF:
        word = "behind" if off < timedelta() else "ahead of"
        yield Finding(
            f"this machine's clock is {abs(off).total_seconds():.0f} s {word} the coordinator's ({setting})",
            "have both follow a time server (timedatectl set-ntp true)",
            stops=False,
        )


def _trusting(identity: Identity) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=identity.ca_file)
    context.load_cert_chain(identity.certificate_file, identity.key_file)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def _fault(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not good: {error.verify_message}"
    if isinstance(error, socket.gaierror):
        return "the name is not known"
    if isinstance(error, ssl.SSLError):
        return f"what answers there is not the coordinator ({error.reason or error})"
    return f"nobody answers ({(error.strerror or str(error)).lower()})"


def _way_out(error: OSError, host: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        if "not yet valid" in error.verify_message or "expired" in error.verify_message:
            return "compare the time of both machines; at the coordinator: munkey-server renew"
        return f"at the coordinator: munkey-server renew --host {host}, or correct the address"
    return "correct the address, or see to the network, the firewall and the coordinator (munkey-server doctor)"
