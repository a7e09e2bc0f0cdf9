"""Waiting for a deletion service that cannot be reached: a federation that cannot hear deletions must not learn."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from fedmunkey.common.errors import ServiceUnavailable

logger = logging.getLogger(__name__)

Wait = Callable[[float], object]
"""Waits for some seconds, or less; `time.sleep` and `threading.Event().wait` are such functions."""

Draw = Callable[[float, float], float]
"""Draws a number between two; `random.Random(seed).uniform` is such a function."""

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 15.0

T = TypeVar("T")


def pauses(draw: Draw | None = None) -> Iterator[float]:
    """Yield the seconds to wait between attempts: each twice the one before, up to a limit.

    With `draw`, each is drawn between 0 and that ("full jitter", Brooker 2015, Exponential Backoff And Jitter), so that
    a thousand sites that lost their connection at once do not come back at once.
    """
    pause = _FIRST_PAUSE
    while True:
        yield pause if draw is None else draw(0.0, pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def jitter(seed: int | None = None) -> Draw:
    """Return a function that draws pauses, by chance or, with a seed, the same ones each time."""
    return random.Random(seed).uniform  # noqa: S311 (spreads attempts, hides nothing)


def wait_for_service(
    attempt: Callable[[], T],
    *,
    patience: float,
    wait: Wait = time.sleep,
    draw: Draw | None = None,
    on_wait: Callable[[str], object] | None = None,
) -> T:
    """Try until the deletion service answers, saying so while it does not.

    `attempt` raises `ServiceUnavailable` where the service cannot be reached; `draw` is as for `pauses`. Before each
    wait, `on_wait` is called with one line that says why and how long it has been. Raises `ServiceUnavailable` if the
    service is still out of reach after `patience` seconds.
    """
    waited = 0.0
    for pause in pauses(draw):
        try:
            return attempt()
        except ServiceUnavailable as error:
            if waited >= patience:
                raise
            reason = f"{error}; no training until it answers (waited {waited:.0f} of {patience:.0f} s)"
        logger.warning("%s", reason)
        if on_wait is not None:
            on_wait(reason)
        seconds = min(pause, patience - waited)
        wait(seconds)
        waited += seconds
    raise AssertionError("pauses never end")
