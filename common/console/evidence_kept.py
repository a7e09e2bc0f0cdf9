"""What a certificate says, kept for a minute: one of a thousand sites takes seconds to make, and has many pages."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

KEPT_SECONDS = 60.0
MOST_KEPT = 8


@dataclass(frozen=True)
class Checked:
    """What a certificate says that was checked at some time, as `certificate_words.document` has it."""

    about: dict[str, Any]
    at: datetime


class EvidenceKept:
    """The last certificates that were checked, by who looked and at which request; safe for threads."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], tuple[float, Checked]] = OrderedDict()

    def find(self, who: str, request_id: str) -> Checked | None:
        """Return what was kept for somebody, None where there is nothing, or it is too old."""
        with self._lock:
            until, checked = self._kept.get((who, request_id), (0.0, None))
        return checked if self._clock() < until else None

    def keep(self, who: str, request_id: str, checked: Checked) -> None:
        """Keep something in place of the oldest."""
        with self._lock:
            self._kept.pop((who, request_id), None)
            self._kept[who, request_id] = (self._clock() + KEPT_SECONDS, checked)
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
