"""Renewing shared weights when that is due, as a program of its own: `munkey-server up` keeps it running.

Run as a program with the path of `coordinator.toml`.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.renewals import RenewalNeed
from fedmunkey.common.errors import ServiceUnavailable
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.programs.flower import serve_from_file
from fedmunkey.common.programs.supervision import own_program
from fedmunkey.common.stop_signals import stop_event
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.superlink.coordinator_file import CoordinatorFile

RENEWING_READY = "renewals of "
"""What the program's first line begins with."""

_LOOK_SECONDS = 2.0
_POLL_SECONDS = 0.2
_AFTER_FAILURE_SECONDS = 60.0
_GIVE_OUT = timedelta(minutes=20)
"""How long a round may take to give out what it has solved for; it has died, or a site has, where it takes longer."""
_LEAD = 0.25
"""The share of the promised time that is left when a renewal of few records is begun."""

logger = logging.getLogger(__name__)


def is_due(need: RenewalNeed, fewest: int, promised: timedelta, now: datetime) -> bool:
    """Return whether weights are to be renewed now.

    That is when enough records are gone, the first has waited long enough, or a round has left weights solved that not
    all sites have.
    """
    if need.solved_at is not None:
        # Until then the round is giving them out, and another would only come in its way.
        return now >= need.solved_at + _GIVE_OUT
    if need.records is None or not need.entries:
        return False
    return need.entries >= fewest or is_late(need, promised, now)


def is_late(need: RenewalNeed, promised: timedelta, now: datetime) -> bool:
    """Return whether a renewal must not wait for others to join it."""
    return need.renew_by is not None and now >= need.renew_by - _LEAD * promised


def renew_when_due(
    ledger: Ledger,
    file: CoordinatorFile,
    renew: Callable[[bool], bool],
    stop: threading.Event,
    *,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Look at the ledger until `stop` is set, and call `renew` where that is due.

    It is told whether few records are enough, and returns whether the weights were renewed. Where runs are not of
    `exact`, none renews weights.
    """
    run = file.run_settings()
    if run.guarantee is not Guarantee.EXACT:
        stop.wait()
        return
    fewest, promised = run.fewest_changed, timedelta(days=run.renew_within)
    pause = _LOOK_SECONDS
    while not stop.wait(pause):
        pause = _LOOK_SECONDS
        try:
            need = ledger.renewal_need()
        except ServiceUnavailable as error:
            logger.warning("%s", error)
            continue
        if is_due(need, fewest, promised, clock()) and not renew(need.entries < fewest):
            pause = _AFTER_FAILURE_SECONDS


def _renew(path: Path, stop: threading.Event, *, now: bool) -> bool:
    """Start a round, wait for its end or until `stop` is set, and return whether the weights were renewed."""
    words = ["run", str(path), "--renew", *(["--now"] if now else [])]
    with tempfile.TemporaryFile("w+") as said:
        command = own_program("fedmunkey.server.cli", *words)
        run = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT)  # noqa: S603
        while run.poll() is None:
            if stop.wait(_POLL_SECONDS):
                # It stops what it has started at the SuperLink.
                run.send_signal(signal.SIGINT)
                run.wait()
                return False
        said.seek(0)
        last = (said.read().strip().splitlines() or [""])[-1]
    if run.returncode:
        logger.error("the shared weights were not renewed: %s", last or f"exit code {run.returncode}")
        return False
    logger.info("the shared weights were renewed")
    return True


def serve(file: CoordinatorFile) -> None:
    """Renew when that is due until SIGINT or SIGTERM."""
    path = Path(sys.argv[1])
    promised = timedelta(days=file.run_settings().renew_within)
    with Ledger(file.ledger, renew=promised) as ledger, stop_event() as stop:
        sys.stdout.write(f"{RENEWING_READY}{ledger.name}\n")
        sys.stdout.flush()
        renew_when_due(ledger, file, lambda few: _renew(path, stop, now=few), stop)


def main() -> None:
    """Run it on the file that the command line names."""
    serve_from_file(CoordinatorFile, serve, logger)
