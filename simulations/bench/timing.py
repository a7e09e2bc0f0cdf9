"""Timing things side by side, so that what else the machine does falls on all of them."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt(3)."""


@dataclass(frozen=True)
class Ratio:
    """How many times longer one thing took than another: median and quartiles, which show the machine's noise."""

    median: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Return a JSON-ready dictionary."""
        return asdict(self)


def alternate(
    actions: Sequence[Callable[[], object]],
    repetitions: int,
    progress: Callable[[int], None] | None = None,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> NDArray[np.float64]:
    """Time actions in turn, after one turn that is not timed.

    Every other turn goes backwards, so that none always follows the same one; `progress` is called with 1 after each.
    `time.process_time` as the clock leaves out what other processes take; it suits one thread only. Returned are
    (repetitions, actions) seconds.
    """
    seconds = np.empty((repetitions, len(actions)))
    for action in actions:
        action()
    for turn in range(repetitions):
        for place in list(range(len(actions)))[:: -1 if turn % 2 else 1]:
            start = clock()
            actions[place]()
            seconds[turn, place] = clock() - start
        if progress is not None:
            progress(1)
    return seconds


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, where the C library is glibc; elsewhere this does nothing.

    glibc otherwise hands large blocks back to the system at sizes that differ from call to call, and fetching them
    again costs up to a third of a pass, now of one model and now of the other.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**30)


def ratio(seconds: NDArray[np.float64], of: int = 0, to: int = 1) -> Ratio:
    """Compare two columns of `alternate`, turn by turn."""
    low, median, high = np.quantile(seconds[:, of] / seconds[:, to], (0.25, 0.5, 0.75)).tolist()
    return Ratio(median, low, high)
