"""Ports for programs that are told where to listen."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import repeat
from pathlib import Path

HOST = "127.0.0.1"
_LOWEST = 20_000
_GIVEN_OUT = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """Return different ports of the loopback address on which nothing listens.

    The system gives them to nobody until the program listens that they are meant for: they lie below those which it
    takes for connections and for whoever asks for any port. Others that draw from the same ones are unlikely to draw
    these. Where none lie below, they are free at this moment only.
    """
    ports: list[int] = []
    with ExitStack() as taken:
        for port in _candidates():
            probe = taken.enter_context(socket.socket())
            with suppress(OSError):
                probe.bind((HOST, port))
                ports.append(int(probe.getsockname()[1]))
            if len(ports) == count:
                break
    return ports


def _candidates() -> Iterator[int]:
    first_given_out = 0
    with suppress(OSError):
        first_given_out = int(_GIVEN_OUT.read_text().split()[0])
    below = range(_LOWEST, first_given_out)
    yield from random.SystemRandom().sample(below, len(below))
    yield from repeat(0)
