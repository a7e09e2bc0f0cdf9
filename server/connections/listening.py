"""Listening at an address, with the reason where that cannot be; gRPC itself would write to stderr and not say it."""

from __future__ import annotations

import contextlib
import socket

from fedmunkey.common.errors import InvalidSetting

_BACKLOG = 2048


def check_free(host: str, port: int, option: str = "--address") -> None:
    """Raise `InvalidSetting`, naming the option that chooses another address, if nothing can listen there."""
    for one in listen(host, port, option):
        one.close()


def listen(host: str, port: int, option: str = "--address") -> list[socket.socket]:
    """Listen at every address of a host, at one port, 0 for one that is free; return the sockets.

    Raises `InvalidSetting`, naming the option that chooses another address, if that cannot be.
    """
    name = host.strip("[]")
    with contextlib.ExitStack() as stack:
        try:
            found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            sockets: list[socket.socket] = []
            for family, kind, protocol, _, place in dict.fromkeys(found):
                try:
                    one = stack.enter_context(socket.socket(family, kind, protocol))
                except OSError:
                    # A machine without IPv6 has names with addresses of it.
                    if len(found) > 1:
                        continue
                    raise
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    # The address of every network means those of IPv4 as well.
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(name != "::"))
                chosen = sockets[0].getsockname()[1] if sockets else port
                one.bind((place[0], chosen, *place[2:]))
                one.listen(_BACKLOG)
                sockets.append(one)
        except OSError as error:
            raise cannot_listen(f"{host}:{port}", error.strerror or str(error), option) from None
        stack.pop_all()
    return sockets


def cannot_listen(address: str, fault: str, option: str = "--address") -> InvalidSetting:
    """Return the error that says so."""
    return InvalidSetting(
        f"cannot listen on {address} ({fault.lower()}); choose another address with {option}, or in coordinator.toml"
    )
