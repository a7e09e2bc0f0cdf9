"""The programs of a run, whose clocks jump: when time passes for everybody, and when the ledger's is set wrong.

A flat battery, a wrong hand or a time server sets a clock wrong. Time that passes is everybody's, so that a run sees in
minutes what becomes of a federation in years.
"""

from __future__ import annotations

import os
from datetime import datetime, tzinfo
from functools import partialmethod
from pathlib import Path

import fedmunkey.client.cli
import fedmunkey.common.clock
import fedmunkey.server.cli
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.simulations.faults import site_training
from fedmunkey.simulations.faults.jumping_clock import TIME, WRONG, JumpingClock

VARIABLE = "MUNKEY_SIM_CLOCK"
"""Names the folder with the clocks' files, which are read at every look at a clock."""


def act_as_coordinator() -> None:
    """Run `munkey-server`, every ledger of which tells the time by the clock that can be wrong."""
    folder = _let_time_pass()
    # Commands are imported when they are typed, and hold the class by then.
    setattr(Ledger, "__init__", partialmethod(Ledger.__init__, clock=JumpingClock(folder / WRONG)))  # noqa: B010
    fedmunkey.server.cli.main()


def act_as_site() -> None:
    """Run `munkey-client`."""
    _let_time_pass()
    fedmunkey.client.cli.main()


def train() -> None:
    """Run a site's training."""
    _let_time_pass()
    site_training.main()


class _PassingTime:
    """Stands where the clock of every program looks for the class of times."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def now(self, zone: tzinfo) -> datetime:
        """Return the run's time."""
        return JumpingClock(self._file, lambda: datetime.now(zone))()


def _let_time_pass() -> Path:
    """Have every look at the clock in this process tell the run's time; return the folder of the clocks' files."""
    folder = Path(os.environ[VARIABLE])
    # Others hold the clock's function already; this is a name that it looks up.
    vars(fedmunkey.common.clock)["datetime"] = _PassingTime(folder / TIME)
    return folder
