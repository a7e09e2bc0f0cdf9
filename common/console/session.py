"""Who may look: one-time links, the sessions that they open, and how often somebody may try."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

LINK_SECONDS = 600.0
"""For so long a link may be opened, once."""

IDLE_SECONDS = 1800.0
"""After so long without a click a session ends."""

SESSION_SECONDS = 12 * 3600.0
"""After so long a session ends in any case."""

MOST_TRIES = 10
"""Wrong links that may be tried within `TRY_SECONDS`; then none is good for as long."""

TRY_SECONDS = 60.0

_MOST_DRAFTS = 20


@dataclass
class Session:
    """A browser that has opened a link.

    `csrf` is what each of its forms carries. `notices` are shown once. `drafts` are what was prepared and not sent, by
    random names; they are nowhere else, and end with the session.
    """

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

    def new_link(self) -> str:
        """Return a token that opens one session, within `LINK_SECONDS`; those before it are good no more."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._links = {token: self._clock() + LINK_SECONDS}
        return token

    def open(self, token: str) -> str | None:
        """Return the name of a new session, None for a token that opens none; raises `TooManyTriesError`."""
        now = self._clock()
        with self._lock:
            self._tries = [at for at in self._tries if now - at < TRY_SECONDS]
            if len(self._tries) >= MOST_TRIES:
                raise TooManyTriesError
            found = next((known for known in self._links if secrets.compare_digest(known, token)), None)
            if found is None or self._links.pop(found) < now:
                self._tries.append(now)
                return None
            name = secrets.token_urlsafe(32)
            self._sessions[name] = Session(secrets.token_urlsafe(32), now, now)
            return name

    def find(self, name: str, *, acts: bool = True) -> Session | None:
        """Return a session that has not ended; with `acts` it has been used just now."""
        now = self._clock()
        with self._lock:
            session = self._sessions.get(name)
            if session is None:
                return None
            if now - session.seen > IDLE_SECONDS or now - session.opened > SESSION_SECONDS:
                del self._sessions[name]
                return None
            if acts:
                session.seen = now
            return session

    def close(self, name: str) -> None:
        """End a session."""
        with self._lock:
            ended = self._sessions.pop(name, None)
        if ended is not None and self._on_closed is not None:
            self._on_closed()
