"""Which sites follow their orders at this process, written to the ledger so that any process can tell."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta

from fedmunkey.server.ledger.ledger import Ledger

RENEWAL_SECONDS = 10.0
"""A connection is written again this often while it lasts."""

_LASTS = timedelta(seconds=3 * RENEWAL_SECONDS)


class Presence:
    """Counts the streams of each site; safe for threads."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._streams: Counter[str] = Counter()
        self._changed: set[str] = set()
        self._lock = threading.Lock()

    def connect(self, site: str) -> None:
        """Count a stream that begins."""
        with self._lock:
            self._streams[site] += 1
            self._changed.add(site)

    def disconnect(self, site: str) -> None:
        """Count a stream that has ended."""
        with self._lock:
            self._streams[site] -= 1
            if not self._streams[site]:
                del self._streams[site]
            self._changed.add(site)

    def write(self, *, everyone: bool = False) -> None:
        """Write what has changed since the last time, or with `everyone` also what has not."""
        with self._lock:
            here = {site for site in self._streams if everyone or site in self._changed}
            gone = self._changed - self._streams.keys()
            self._changed.clear()
        if here:
            self._ledger.note_contact(here, lasts=_LASTS)
        if gone:
            self._ledger.note_contact(gone, lasts=None)
