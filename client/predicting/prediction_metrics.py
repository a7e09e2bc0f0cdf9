"""What Prometheus reads of a prediction service: answers, seconds, refusals, whether it waits; no picture's name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fedmunkey.client.predicting.warm_predictor import WarmPredictor

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Answered(StrEnum):
    """What became of a picture."""

    CLASSIFIED = "classified"
    REFUSED = "refused"
    """It cannot be used, or is too large."""
    UNAVAILABLE = "unavailable"
    """The site does not answer for now."""


class PredictionMeter:
    """Counts what a service answers, from when it was made."""

    def __init__(self, predictor: WarmPredictor) -> None:
        self.registry = CollectorRegistry()
        self._answers = Counter(
            "fedmunkey_predictions", "Pictures, by what became of them.", ["answer"], registry=self.registry
        )
        for answer in Answered:
            self._answers.labels(answer.value)
        self._seconds = Histogram(
            "fedmunkey_prediction_seconds",
            "Seconds from a picture's last byte to its answer.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        waiting = Gauge(
            "fedmunkey_predictions_waiting",
            "Whether nothing is answered for now: the store has to catch up with deletions, or a renewal is late.",
            registry=self.registry,
        )
        waiting.set_function(lambda: float(predictor.is_waiting()))

    def count(self, answer: Answered) -> None:
        """Count a picture."""
        self._answers.labels(answer.value).inc()

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Measure how long an answer takes."""
        start = time.perf_counter()
        yield
        self._seconds.observe(time.perf_counter() - start)
