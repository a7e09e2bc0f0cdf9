"""Why somebody was turned away, and how often each of it happened."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector


class Cause(StrEnum):
    """What was wrong."""

    UNKNOWN = "unknown"
    """The certificate is in no register."""
    REVOKED = "revoked"
    REPLACED = "replaced"
    """A later certificate took its place."""
    EXPIRED = "expired"
    ROLE = "role"
    """Members of this role may not make this call."""
    DUTY = "duty"
    """The member only looks."""
    NAME = "name"
    """The call is about another member, or about a request of others."""


@dataclass(frozen=True)
class Refusal:
    """Why a call was refused: the cause, for programs, and one line for the caller."""

    cause: Cause
    reason: str


class Refusals(Collector):
    """Counts refusals by cause, for Prometheus; safe for threads."""

    def __init__(self) -> None:
        self._counts: Counter[Cause] = Counter()
        self._lock = threading.Lock()

    def add(self, cause: Cause) -> None:
        """Count one."""
        with self._lock:
            self._counts[cause] += 1

    def count(self, cause: Cause) -> int:
        """Return how many there were."""
        with self._lock:
            return self._counts[cause]

    def collect(self) -> Iterator[Metric]:
        """Yield the counter."""
        counter = CounterMetricFamily("fedmunkey_refused_calls", "Calls that were refused, by cause.", labels=["cause"])
        for cause in Cause:
            counter.add_metric([cause.value], self.count(cause))
        yield counter
