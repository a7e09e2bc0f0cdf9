"""`munkey-server` with a clock that jumps, as a flat battery, a wrong hand or a time server makes it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import fedmunkey.server.cli
from fedmunkey.common.clock import utc_now

VARIABLE = "MUNKEY_SIM_CLOCK"
"""Names a file that holds by how many seconds the clock is wrong; it is read at every look at the clock."""


def main() -> None:
    """Run `munkey-server`, every ledger of which tells the time by that file."""
    clock = JumpingClock(Path(os.environ[VARIABLE]))
    names = vars(fedmunkey.server.cli)
    names["Ledger"] = partial(names["Ledger"], clock=clock)
    fedmunkey.server.cli.main()


class JumpingClock:
    """A clock that is wrong by the seconds that a file holds; one that is missing or empty makes the clock right."""

    def __init__(self, file: Path, true: Callable[[], datetime] = utc_now) -> None:
        self._file, self._true = file, true

    def __call__(self) -> datetime:
        """Return the time, or what this clock takes for it."""
        try:
            seconds = float(self._file.read_text() or 0)
        except FileNotFoundError:
            seconds = 0.0
        return self._true() + timedelta(seconds=seconds)

    def jump(self, seconds: float) -> None:
        """Make the clock wrong by some seconds, in every process that reads the file."""
        aside = self._file.with_suffix(".next")
        aside.write_text(str(seconds))
        aside.replace(self._file)
