"""Clocks that jump: all of a run's when time passes, and the ledger's when it is set wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from fedmunkey.common.clock import utc_now

TIME, WRONG = "time", "wrong"
"""Files of a folder: by how much every clock of a run is ahead, and by how much more the ledger's is."""


class JumpingClock:
    """A clock that is ahead by the seconds that a file holds; one that is missing or empty makes the clock right."""

    def __init__(self, file: Path, true: Callable[[], datetime] = utc_now) -> None:
        self._file, self._true = file, true

    def __call__(self) -> datetime:
        """Return the time, or what this clock takes for it."""
        return self._true() + timedelta(seconds=self.ahead)

    @property
    def ahead(self) -> float:
        """By how many seconds the clock is ahead."""
        try:
            return float(self._file.read_text() or 0)
        except FileNotFoundError:
            return 0.0

    def jump(self, seconds: float) -> None:
        """Put the clock ahead by some seconds, in every process that reads the file."""
        aside = self._file.with_suffix(".next")
        aside.write_text(str(seconds))
        aside.replace(self._file)
