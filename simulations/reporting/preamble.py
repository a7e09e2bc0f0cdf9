"""What every report begins with."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.programs.json_values import settings_values
from fedmunkey.simulations.programs.machine import PACKAGES, describe_machine, describe_versions

_FORMAT = 1
SIMULATED = (
    "Hospitals are simulated: one public data set is divided among them, and all are tested on the same records."
)
"""A limit of every report."""


def preamble(kind: str, command: str, settings: Settings) -> dict[str, Any]:
    """Return the kind of a report, and what it takes to make it again, such as the command line as it was typed."""
    return {
        "format": _FORMAT,
        "kind": kind,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "versions": describe_versions(PACKAGES),
        "machine": describe_machine(),
        "settings": settings_values(settings),
    }
