"""What a service does by itself: hear of other processes' orders, note who is connected, find what is late."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from fedmunkey.common.errors import FedmunkeyError
from fedmunkey.server.deletions.ledger_service import LedgerService, News
from fedmunkey.server.deletions.presence import RENEWAL_SECONDS, Presence

POLL_SECONDS = 1.0
"""Another process's orders are found at the latest after so long; PostgreSQL announces them at once."""

OVERDUE_SECONDS = 60.0
"""How often requests are looked for whose time has run out."""

_log = logging.getLogger(__name__)


class Upkeep:
    """Runs in a thread of its own until it is stopped.

    Followers of the service are woken; `presence` has the sites that are connected here. The clock gives seconds that
    never go back. `replaced` is called where the ledger went back to a copy.
    """

    def __init__(
        self,
        service: LedgerService,
        presence: Presence,
        *,
        clock: Callable[[], float] = time.monotonic,
        replaced: Callable[[], None] = lambda: None,
    ) -> None:
        self._service = service
        self._presence = presence
        self._clock = clock
        self._replaced = replaced
        self._positions = service.ledger.positions()
        self._mark = service.ledger.mark()
        self._renewed = self._swept = -float("inf")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="deletion-upkeep", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for that."""
        self._stop.set()
        self._thread.join()

    def look(self) -> None:
        """Do once what is to be done by now."""
        mark = self._service.ledger.mark()
        if not self._service.ledger.continues(self._mark):
            _log.error("the ledger went back to a copy while the service ran; stop it before a copy is put back")
            self._replaced()
            self._service.replaced()
        self._mark = mark
        positions = self._service.ledger.positions()
        changed = {site for site, last in positions.items() if self._positions.get(site, 0) != last}
        self._positions = positions
        numbers = {site: last for site in changed if (last := positions[site]) is not None}
        if changed:
            self._service.spread(News(numbers, left=frozenset(changed - numbers.keys())))
        now = self._clock()
        renew = now - self._renewed >= RENEWAL_SECONDS
        self._renewed = now if renew else self._renewed
        self._presence.write(everyone=renew)
        if now - self._swept >= OVERDUE_SECONDS:
            self._swept = now
            self._service.ledger.mark_overdue()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._listen()
            except FedmunkeyError as error:
                _log.warning("%s", error)
            except Exception:
                # Streams must not fall silent for good; a database that is gone may come back.
                _log.exception("the ledger could not be looked at")
            self._stop.wait(POLL_SECONDS)

    def _listen(self) -> None:
        announcements = self._service.ledger.announcements(self._stop)
        try:
            while not self._stop.is_set():
                self.look()
                announcements.wait(POLL_SECONDS)
        finally:
            announcements.close()
