"""Models that sites gave away and that receipts name: gathered once, and then as receipts come."""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass

from fedmunkey.common.errors import ServiceUnavailable
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.ledger.lineage import NamedModel

LOOK_SECONDS = 1.0
"""How often receipts that have come are read."""

_MOMENT_SECONDS = 0.1

MOST_KEPT = 10_000
"""Models of which the last are kept."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Named:
    """The models, the last that was named first, and whether all receipts were read; `count` has all there were."""

    models: tuple[NamedModel, ...]
    count: int
    complete: bool


class NamedModels:
    """Reads the receipts of a ledger in a thread of its own, from the first question on, until `ended` is set."""

    def __init__(self, ledger: Ledger, ended: threading.Event) -> None:
        self._ledger = ledger
        self._ended = ended
        self._lock = threading.Lock()
        self._found: deque[NamedModel] = deque(maxlen=MOST_KEPT)
        self._count = 0
        self._complete = False
        self._thread: threading.Thread | None = None
        self._all_read = threading.Event()

    def read(self) -> Named:
        """Return what is known, after a moment where not all receipts were read yet."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._follow, name="named-models", daemon=True)
                self._thread.start()
        self._all_read.wait(_MOMENT_SECONDS)
        with self._lock:
            return Named(tuple(reversed(self._found)), self._count, self._complete)

    def _follow(self) -> None:
        after = 0
        while not self._ended.is_set():
            try:
                found, last = self._ledger.named_models(after)
            except ServiceUnavailable as error:
                _log.warning("%s", error)
                found, last = (), after
            with self._lock:
                self._found.extend(found)
                self._count += len(found)
                self._complete = self._complete or last == after
            if self._complete:
                self._all_read.set()
            if last == after:
                self._ended.wait(LOOK_SECONDS)
            after = last
