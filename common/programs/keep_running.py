"""All processes of one machine, from one file, until it is told to stop."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from fedmunkey.common.programs.log_format import log_lines
from fedmunkey.common.programs.settings_file import SettingsFile
from fedmunkey.common.programs.supervision import Child, Supervisor, tell_systemd_ready
from fedmunkey.common.stop_signals import stopped_by_signals


def keep_running(children: Sequence[Child], settings: SettingsFile, ready: str) -> None:
    """Keep children running until SIGINT or SIGTERM; print `ready`, and tell systemd, when all of them serve."""

    def say() -> None:
        sys.stdout.write(f"{ready}\n")
        sys.stdout.flush()
        tell_systemd_ready()

    supervisor = Supervisor(children, start_seconds=settings.start_seconds, on_ready=say)
    spoken = logging.getLogger("fedmunkey.common.programs.supervision")
    with log_lines(logging.StreamHandler(), settings.log_format, spoken), stopped_by_signals(supervisor.stop):
        supervisor.run()
