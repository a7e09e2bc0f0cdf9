"""The connections that a port which strangers reach has at once.

Whoever has not shown yet who it is, is a stranger: few of them are connected at once, and none for long. Where one too
many comes, the oldest goes: a member shows who it is within a moment, and who holds connections open does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from fedmunkey.common.settings.addresses import network_of

Peer = tuple[str, int]

MOST_STRANGERS = 32
MOST_OF_AN_ADDRESS = 16
MOST_OF_A_MEMBER = 32
STRANGER_SECONDS = 8.0
"""How long somebody may take to show who it is, from the first byte to the end of a request's headers."""


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
        self._unknown: dict[Peer, _Place] = {}

    def __len__(self) -> int:
        return len(self._places)

    def take(self, peer: Peer, end: Callable[[], None]) -> None:
        """Give a stranger a place; whom it displaces is ended, and it is itself once its time is over."""
        place = _Place(peer, network_of(peer[0]), end)
        place.timer = asyncio.get_running_loop().call_later(self._seconds, self._end, place)
        self._places[peer] = self._unknown[peer] = place
        same = [held for held in self._unknown.values() if held.address == place.address]
        if len(same) > self._each:
            self._end(same[0])
        elif len(self._unknown) > self._strangers:
            self._end(next(iter(self._unknown.values())))

    def wait_on(self, peer: Peer) -> None:
        """Let a stranger take its time, which may still be displaced."""
        place = self._unknown.get(peer)
        if place is not None and place.timer is not None:
            place.timer.cancel()

    def introduce(self, peer: Peer, member: str) -> None:
        """Say whose connection it is: it may stay, and a member's oldest goes where it has too many."""
        place = self._places.get(peer)
        if place is None or place.owner == member:
            return
        self.wait_on(peer)
        self._unknown.pop(peer, None)
        place.owner = member
        own = [held for held in self._places.values() if held.owner == member]
        if len(own) > self._member:
            self._end(own[0])

    def leave(self, peer: Peer) -> None:
        """Free the place of a connection that has ended."""
        self.wait_on(peer)
        self._unknown.pop(peer, None)
        self._places.pop(peer, None)

    def _end(self, place: _Place) -> None:
        if self._places.get(place.peer) is place:
            self.leave(place.peer)
            place.end()
