"""All processes of one machine, from one file, until it is told to stop."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace

from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import EXIT_CODE, FedmunkeyError
from fedmunkey.common.programs.folder_lock import held
from fedmunkey.common.programs.last_watch import last_watch
from fedmunkey.common.programs.log_format import LogFormat, log_lines, said_in_json
from fedmunkey.common.programs.settings_file import SettingsFile
from fedmunkey.common.programs.supervision import Child, Supervisor, print_line, tell_systemd_ready
from fedmunkey.common.stop_signals import stopped_by_signals


def keep_running(children: Sequence[Child], settings: SettingsFile, ready: str) -> None:
    """Keep children running, as `_keep_running`, and end this process where that fails.

    Why it does is a line like all others where these are JSON.
    """
    try:
        _keep_running(children, settings, ready)
    except FedmunkeyError as error:
        if settings.log_format is not LogFormat.JSON:
            raise
        sys.stderr.write(f"{said_in_json(__name__, f'ERROR {error}', utc_now())}\n")
        sys.exit(EXIT_CODE)


def _keep_running(children: Sequence[Child], settings: SettingsFile, ready: str) -> None:
    """Keep children running until SIGINT or SIGTERM; print `ready`, and tell systemd, when all of them serve.

    Each runs once for the folder that the settings name, and none outlives this process, nor does what they start.
    Raises `ProcessNotStarted` if one runs there already, or cannot be started.
    """
    spoken = logging.getLogger("fedmunkey.common.programs.supervision")
    in_json = settings.log_format is LogFormat.JSON

    def say() -> None:
        sys.stdout.write(f"{said_in_json(spoken.name, ready, utc_now()) if in_json else ready}\n")
        sys.stdout.flush()
        tell_systemd_ready()

    with (
        held(settings.folder, [child.name for child in children]),
        last_watch() as mark,
        log_lines(logging.StreamHandler(), settings.log_format, spoken),
    ):
        marked = [replace(child, environment={**child.environment, **mark}) for child in children]
        show = _print_json if in_json else print_line
        supervisor = Supervisor(marked, say=show, start_seconds=settings.start_seconds, on_ready=say)
        with stopped_by_signals(supervisor.stop):
            supervisor.run()


def _print_json(name: str, line: str) -> None:
    """Print a child's line on stderr as a JSON object; one of blanks says nothing."""
    if line.strip():
        sys.stderr.write(f"{said_in_json(name, line, utc_now())}\n")
        sys.stderr.flush()
