"""How somebody comes in: by a one-time link, or by what a face asks for instead."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from fastapi import Request

from fedmunkey.common.console.session import Doorway, Session, TooManyTriesError, Viewer


class NotAdmittedError(Exception):
    """Somebody is not let in; `said` is a text's key, or a sentence for whoever looks."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status
        self.said = said


class Entrance(ABC):
    """What decides who comes in, and whether they may stay; called in threads, at every request."""

    method = "GET"
    """The method of `/open`, where sessions begin."""

    is_encrypted = False
    """Whether browsers reach the face over TLS alone."""

    door = "door.html"
    """The template of the page that whoever has no session sees."""

    def __init__(self, doorway: Doorway) -> None:
        self.doorway = doorway

    @abstractmethod
    def open(self, request: Request) -> str:
        """Return the name of a new session; raises `NotAdmittedError`."""

    @abstractmethod
    def address(self, listening: str) -> str:
        """Return what somebody opens to come in, at an address `host:port`."""

    def fault(self, request: Request, session: Session) -> str:  # noqa: ARG002
        """Return why a session is not, or no longer, that of whoever makes a request; empty if it is."""
        return ""

    def spender(self, request: Request) -> str:  # noqa: ARG002
        """Return by whom requests are counted: whoever asks for more than a share waits."""
        return ""

    def greeting(self, request: Request) -> dict[str, Any]:  # noqa: ARG002
        """Return what the door shows of whoever stands before it."""
        return {}


class LinkEntrance(Entrance):
    """Lets in whoever opens a link that the program has printed, as one viewer."""

    def __init__(self, viewer: Viewer, on_closed: Callable[[], object] | None = None) -> None:
        super().__init__(Doorway(on_closed=on_closed))
        self._viewer = viewer

    def open(self, request: Request) -> str:
        """Take the link's token."""
        try:
            name = self.doorway.open(request.query_params.get("token", ""), self._viewer)
        except TooManyTriesError:
            raise NotAdmittedError(429, "door.too-many") from None
        if name is None:
            raise NotAdmittedError(403, "door.used")
        return name

    def address(self, listening: str) -> str:
        """Return a link that opens one session."""
        return f"http://{listening}/open?token={self.doorway.new_link()}"
