"""Who may look: sessions, the one-time links that open them, and how often somebody may try."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fedmunkey.common.service.console_service import ConsoleService

LINK_SECONDS = 600.0
"""For so long a link may be opened, once."""

IDLE_SECONDS = 1800.0
"""After so long without a click a session ends."""

SESSION_SECONDS = 12 * 3600.0
"""After so long a session ends in any case."""

MOST_TRIES = 10
"""Wrong links that may be tried within `TRY_SECONDS`; then none is good for as long."""

TRY_SECONDS = 60.0

MOST_SESSIONS = 8
"""Sessions of one viewer at a time; the oldest ends where one more begins."""

_MOST_DRAFTS = 20


@dataclass(frozen=True)
class Viewer:
    """Who looks.

    Attributes
    ----------
    reader : str
        Whose requests are shown, as `RequestQuery.reader`.
    who : str
        What is said of that at the top of each page.
    service : ConsoleService
        What may be asked for them, and no more.
    certificate : str
        The serial number of the certificate by which they are known; empty where a link has let them in.
    """

    reader: str
    who: str
    service: ConsoleService = field(repr=False)
    certificate: str = ""


@dataclass
class Session:
    """A browser that was let in, for a viewer.

    `csrf` is what each of its forms carries. `notices` are shown once. `drafts` are what was prepared and not sent, by
    random names; they are nowhere else, and end with the session.
    """

    viewer: Viewer
    csrf: str
    opened: float
    seen: float
    language: str = ""
    notices: list[tuple[str, str]] = field(default_factory=list)
    drafts: dict[str, Any] = field(default_factory=dict, repr=False)
    memory: dict[str, Any] = field(default_factory=dict, repr=False)

    def say(self, kind: str, text: str) -> None:
        """Have something shown on the next page, and on no other."""
        self.notices.append((kind, text))

    def take_notices(self) -> list[tuple[str, str]]:
        """Return what is to be shown, which is shown no more afterwards."""
        taken, self.notices = self.notices, []
        return taken

    def keep(self, draft: object) -> str:
        """Keep a draft, in place of the oldest where there are many; return its name."""
        while len(self.drafts) >= _MOST_DRAFTS:
            del self.drafts[next(iter(self.drafts))]
        name = secrets.token_urlsafe(12)
        self.drafts[name] = draft
        return name


class TooManyTriesError(Exception):
    """Too many wrong links were tried."""


class Doorway:
    """Gives out links and sessions; safe for threads. `on_closed` is called when a session was ended by hand."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, on_closed: Callable[[], object] | None = None
    ) -> None:
        self._clock = clock
        self._on_closed = on_closed
        self._lock = threading.Lock()
        self._links: dict[str, float] = {}
        self._sessions: dict[str, Session] = {}
        self._tries: list[float] = []

    def __len__(self) -> int:
        """Return how many sessions are kept, some of which may have ended by themselves."""
        return len(self._sessions)

    def new_link(self) -> str:
        """Return a token that opens one session, within `LINK_SECONDS`; those before it are good no more."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._links = {token: self._clock() + LINK_SECONDS}
        return token

    def open(self, token: str, viewer: Viewer) -> str | None:
        """Return the name of a viewer's new session, None for a token that opens none; raises `TooManyTriesError`."""
        now = self._clock()
        with self._lock:
            self._tries = [at for at in self._tries if now - at < TRY_SECONDS]
            if len(self._tries) >= MOST_TRIES:
                raise TooManyTriesError
            found = next((known for known in self._links if secrets.compare_digest(known, token)), None)
            if found is None or self._links.pop(found) < now:
                self._tries.append(now)
                return None
            return self._admit(viewer, now)

    def admit(self, viewer: Viewer) -> str:
        """Return the name of a new session of somebody who is known without a link."""
        with self._lock:
            return self._admit(viewer, self._clock())

    def find(self, name: str, *, acts: bool = True) -> Session | None:
        """Return a session that has not ended; with `acts` it has been used just now."""
        now = self._clock()
        with self._lock:
            session = self._sessions.get(name)
            if session is None:
                return None
            if _has_ended(session, now):
                del self._sessions[name]
                return None
            if acts:
                session.seen = now
            return session

    def _admit(self, viewer: Viewer, now: float) -> str:
        """Begin a session; whatever has ended by itself is forgotten, and so is the oldest of too many."""
        for ended in [name for name, session in self._sessions.items() if _has_ended(session, now)]:
            del self._sessions[ended]
        own = [name for name, session in self._sessions.items() if session.viewer.who == viewer.who]
        for oldest in own[: max(0, len(own) + 1 - MOST_SESSIONS)]:
            del self._sessions[oldest]
        name = secrets.token_urlsafe(32)
        self._sessions[name] = Session(viewer, secrets.token_urlsafe(32), now, now)
        return name

    def close(self, name: str) -> None:
        """End a session."""
        with self._lock:
            ended = self._sessions.pop(name, None)
        if ended is not None and self._on_closed is not None:
            self._on_closed()


def _has_ended(session: Session, now: float) -> bool:
    return now - session.seen > IDLE_SECONDS or now - session.opened > SESSION_SECONDS
