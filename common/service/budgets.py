"""What somebody may have of a service: so much at once, and so much in the long run."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_MOST_KEPT = 4096


@dataclass(frozen=True)
class Allowance:
    """So much at once, and so much again in each second after it was spent."""

    at_once: float
    a_second: float


class Budgets:
    """Budgets of one kind, by who spends them; safe for threads.

    Those of `_MOST_KEPT` spenders are kept, and whoever has spent nothing for the longest time is forgotten: by then,
    most have their whole budget again.
    """

    def __init__(self, allowance: Allowance, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowance = allowance
        self._clock = clock
        self._lock = threading.Lock()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def spend(self, who: str, amount: float = 1.0) -> float:
        """Spend an amount if it is there; return 0, or after how many seconds it will be.

        An amount above what there is at once is spent as that much.
        """
        allowed = self._allowance
        amount = min(amount, allowed.at_once)
        with self._lock:
            now = self._clock()
            left, at = self._left.pop(who, (allowed.at_once, now))
            left = min(allowed.at_once, left + (now - at) * allowed.a_second)
            missing = max(0.0, amount - left)
            self._left[who] = (left if missing else left - amount, now)
            if len(self._left) > _MOST_KEPT:
                self._left.popitem(last=False)
        return missing / allowed.a_second
