"""A console on this machine's own address, until it is stopped."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import uvicorn

from fedmunkey.common.console.guard import Guard
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.settings.addresses import is_loopback, split_address
from fedmunkey.common.stop_signals import StopAsked, stopped_by_signals

LINK_LINE = "open "
"""What the line begins with in which a program prints a link."""

_WAITING = 64
_GRACE_SECONDS = 2


def listen(address: str) -> tuple[socket.socket, str]:
    """Return a socket that listens on a loopback address, and the address with the port that it got.

    Raises `InvalidSetting` if others than this machine could reach it, or it is in use.
    """
    host, port = split_address(address)
    if not is_loopback(host):
        raise InvalidSetting(
            f"{address} can be reached from other machines, and a console is for its own machine only; "
            f"give --listen an address of this machine, such as 127.0.0.1:{port}"
        )
    bare = host.strip("[]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((bare, port))
        listening.listen(_WAITING)
    except OSError as error:
        listening.close()
        raise InvalidSetting(
            f"{address} cannot be listened on ({error.strerror}); name another with --listen"
        ) from None
    return listening, f"{host}:{listening.getsockname()[1]}"


def server_for(app: Any, address: str) -> uvicorn.Server:
    """Return what serves an application under an address and under this machine's own name, and under no other."""
    port = address.rpartition(":")[2]
    return uvicorn.Server(configuration(app, {address, f"localhost:{port}"}))


def configuration(app: Any, hosts: Collection[str], **more: Any) -> uvicorn.Config:
    """Return how a console's application is served under some hosts, each with its port; `more` is uvicorn's own."""
    return uvicorn.Config(
        Guard(app, hosts),
        # Nothing that is asked for is written down.
        access_log=False,
        log_config=None,
        server_header=False,
        # A header must not be able to say whom a request comes from.
        proxy_headers=False,
        lifespan="on",
        ws="none",
        timeout_graceful_shutdown=_GRACE_SECONDS,
        **more,
    )


@dataclass(frozen=True)
class Serving:
    """A server and the sockets at which it takes connections."""

    server: uvicorn.Server
    sockets: Sequence[socket.socket]


def serve(servings: Sequence[Serving], begin: Callable[[], object], on_stop: Callable[[], object]) -> None:
    """Serve until SIGINT or SIGTERM, or until one of the servers has ended; `on_stop` ends streams, which would go on.

    `begin` is called once signals are heeded, so whoever is told then may stop it at once.
    """
    stop = StopAsked()

    def run(serving: Serving) -> None:
        try:
            serving.server.run(sockets=list(serving.sockets))
        finally:
            stop.ask()

    # In the main thread one would take the signals, and end by raising them again.
    threads = [threading.Thread(target=run, args=(serving,), name="console") for serving in servings]
    with stopped_by_signals(stop.ask):
        for thread in threads:
            thread.start()
        begin()
        stop.wait()
        on_stop()
        for serving in servings:
            serving.server.should_exit = True
        for thread in threads:
            thread.join()
