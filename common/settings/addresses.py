"""Addresses of services, `host:port`: an IPv6 host keeps its brackets."""

from __future__ import annotations

import ipaddress
import socket

from fedmunkey.common.errors import InvalidSetting

_OWN = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104


def split_address(address: str) -> tuple[str, int]:
    """Return host and port, 0 of which lets a server choose; raises `InvalidSetting` if there is no such."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise InvalidSetting(f"{address!r} is not an address: write host:port, such as 127.0.0.1:9440")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Return whether a host can only be reached from its own machine."""
    return host in ("localhost", "[::1]") or host.startswith("127.")


def loopback_address(address: str) -> str:
    """Return where this machine reaches a service of its own that listens everywhere."""
    host, port = split_address(address)
    return f"{_OWN.get(host, host)}:{port}"


def known_address(value: str) -> str:
    """Check an address in a setting, whose port must be known; raises `ValueError`, as pydantic's validators do."""
    try:
        port = split_address(value)[1]
    except InvalidSetting:
        port = 0
    if not port:
        raise ValueError("must be host:port, such as 127.0.0.1:9440")
    return value


def network_of(host: str) -> str:
    """Return what counts as one address: an IPv4 address, or an IPv6 network of 64 bits, which one subscriber has."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped or ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return host


def can_listen(address: str) -> str:
    """Return why this machine cannot listen at an address; empty if it can."""
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host.strip("[]"), port), family=family).close()
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""
