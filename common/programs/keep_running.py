"""All processes of one machine, from one file, until it is told to stop."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace

from fedmunkey.common.programs.folder_lock import held
from fedmunkey.common.programs.last_watch import last_watch
from fedmunkey.common.programs.log_format import log_lines
from fedmunkey.common.programs.settings_file import SettingsFile
from fedmunkey.common.programs.supervision import Child, Supervisor, tell_systemd_ready
from fedmunkey.common.stop_signals import stopped_by_signals


def keep_running(children: Sequence[Child], settings: SettingsFile, ready: str) -> None:
    """Keep children running until SIGINT or SIGTERM; print `ready`, and tell systemd, when all of them serve.

    Each runs once for the folder that the settings name, and none outlives this process, nor does what they start.
    Raises `ProcessNotStarted` if one runs there already, or cannot be started.
    """

    def say() -> None:
        sys.stdout.write(f"{ready}\n")
        sys.stdout.flush()
        tell_systemd_ready()

    spoken = logging.getLogger("fedmunkey.common.programs.supervision")
    with (
        held(settings.folder, [child.name for child in children]),
        last_watch() as mark,
        log_lines(logging.StreamHandler(), settings.log_format, spoken),
    ):
        marked = [replace(child, environment={**child.environment, **mark}) for child in children]
        supervisor = Supervisor(marked, start_seconds=settings.start_seconds, on_ready=say)
        with stopped_by_signals(supervisor.stop):
            supervisor.run()
