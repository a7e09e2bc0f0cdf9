"""Connections of the SuperLink, bounded before anything is spent on them.

A TLS connection costs some hundred kilobytes as soon as it is taken, so it is counted as a socket, before. Whoever has
not shown yet who it is, is a stranger: few of them are connected at once, and none for long. Where one too many comes,
the oldest goes: a site shows who it is within a moment, and who holds connections open does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedmunkey.common.settings.addresses import network_of

logger = logging.getLogger(__name__)

Peer = tuple[str, int]

MOST_STRANGERS = 32
MOST_OF_AN_ADDRESS = 16
MOST_OF_A_MEMBER = 32
STRANGER_SECONDS = 8.0
"""How long somebody may take to show who it is, from the first byte to the end of a request's headers."""

_HANDSHAKE_SECONDS = 5.0
_GOODBYE_SECONDS = 1.0
_FULL_SECONDS = 0.1


@dataclass(eq=False)
class _Place:
    peer: Peer
    address: str
    end: Callable[[], None]
    timer: asyncio.TimerHandle | None = None
    owner: str = ""
    """The member that the connection belongs to, empty for a stranger's."""


class Places:
    """The connections that there are, oldest first; used by one event loop."""

    def __init__(
        self,
        *,
        strangers: int = MOST_STRANGERS,
        each: int = MOST_OF_AN_ADDRESS,
        member: int = MOST_OF_A_MEMBER,
        seconds: float = STRANGER_SECONDS,
    ) -> None:
        self._strangers = strangers
        self._each = each
        self._member = member
        self._seconds = seconds
        self._places: dict[Peer, _Place] = {}

    def __len__(self) -> int:
        return len(self._places)

    def take(self, peer: Peer, end: Callable[[], None]) -> None:
        """Give a stranger a place; whom it displaces is ended, and it is itself once its time is over."""
        place = _Place(peer, network_of(peer[0]), end)
        place.timer = asyncio.get_running_loop().call_later(self._seconds, self._end, place)
        self._places[peer] = place
        strangers = [held for held in self._places.values() if not held.owner]
        same = [held for held in strangers if held.address == place.address]
        if len(same) > self._each:
            self._end(same[0])
        elif len(strangers) > self._strangers:
            self._end(strangers[0])

    def introduce(self, peer: Peer, member: str) -> None:
        """Say whose connection it is: it may stay, and a member's oldest goes where it has too many."""
        place = self._places.get(peer)
        if place is None or place.owner == member:
            return
        place.owner = member
        if place.timer is not None:
            place.timer.cancel()
        own = [held for held in self._places.values() if held.owner == member]
        if len(own) > self._member:
            self._end(own[0])

    def leave(self, peer: Peer) -> None:
        """Free the place of a connection that has ended."""
        place = self._places.pop(peer, None)
        if place is not None and place.timer is not None:
            place.timer.cancel()

    def _end(self, place: _Place) -> None:
        if self._places.get(place.peer) is place:
            self.leave(place.peer)
            place.end()


class Doorway:
    """Takes connections at a listening socket, encrypts them and hands each to a protocol of its own.

    A protocol is made with what it calls once its connection is lost. Without `places`, as on loopback, connections are
    not counted.
    """

    def __init__(
        self,
        listening: socket.socket,
        encryption: ssl.SSLContext,
        make_protocol: Callable[[Callable[[], None]], asyncio.Protocol],
        places: Places | None,
    ) -> None:
        listening.setblocking(False)
        self._listening = listening
        self._encryption = encryption
        self._make_protocol = make_protocol
        self._places = places
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Begin."""
        self._keep(self._accept())

    def close(self) -> None:
        """Take no more; those that were handed on stay."""
        for task in list(self._tasks):
            task.cancel()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(self._listening)
            except OSError as error:
                # Out of files, for example: those that are there go on, and end.
                logger.warning("a connection could not be taken: %s", error.strerror)
                await asyncio.sleep(_FULL_SECONDS)
                continue
            self._keep(self._admit(connection, (peer[0], peer[1])))

    def _keep(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _admit(self, connection: socket.socket, peer: Peer) -> None:
        held: list[asyncio.BaseTransport] = []
        ours = asyncio.current_task()

        def end() -> None:
            if held:
                held[0].abort()  # type: ignore[attr-defined]
            elif ours is not None:
                ours.cancel()

        def left() -> None:
            if self._places is not None:
                self._places.leave(peer)

        if self._places is not None:
            self._places.take(peer, end)
        try:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._make_protocol(left),
                connection,
                ssl=self._encryption,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=_GOODBYE_SECONDS,
            )
        except (OSError, asyncio.CancelledError):
            # What a stranger says instead of a handshake is no line in a log.
            with contextlib.suppress(OSError):
                connection.close()
            left()
            return
        held.append(transport)
