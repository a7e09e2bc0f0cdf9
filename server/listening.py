"""Whether an address can be listened on; gRPC itself would not say why it cannot, and would write to stderr."""

from __future__ import annotations

import socket

from fedmunkey.common.errors import InvalidSetting


def check_free(host: str, port: int, option: str = "--address") -> None:
    """Raise `InvalidSetting`, naming the option that chooses another address, if nothing can listen there."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen()
    except OSError as error:
        raise cannot_listen(f"{host}:{port}", error.strerror or str(error), option) from None


def cannot_listen(address: str, fault: str, option: str = "--address") -> InvalidSetting:
    """Return the error that says so."""
    return InvalidSetting(f"cannot listen on {address} ({fault.lower()}); choose another address with {option}")
