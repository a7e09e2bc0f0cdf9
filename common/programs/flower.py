"""How this project starts Flower's programs: the app's manifest, their environment and where they lie.

The apps are this installation's `fedmunkey.server.app` and `fedmunkey.client.app`. The app folder that Flower sends
about holds nothing but the settings, so no code travels.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fedmunkey.common.errors import EXIT_CODE, FedmunkeyError
from fedmunkey.common.programs.log_format import log_lines
from fedmunkey.common.programs.settings_file import SettingsFile
from fedmunkey.common.service.foreign_text import printable
from fedmunkey.common.settings.settings import Settings
from fedmunkey.common.settings.settings_text import ConfigValue

_File = TypeVar("_File", bound=SettingsFile)
IMPORT_ROOT = Path(__file__).absolute().parents[3]
"""The folder in which this installation's `fedmunkey` lies."""

MANIFEST = "pyproject.toml"
"""The only file of the app."""


APPS = ("fedmunkey.server.app:app", "fedmunkey.client.app:app")
"""The coordinator's app and a site's."""


def app_manifest(settings: Settings, name: str = "fedmunkey-simulation", apps: tuple[str, str] = APPS) -> str:
    """Return the `pyproject.toml` of a Flower app that runs this installation's apps with the given settings."""
    values = "\n".join(f"{key} = {_toml(value)}" for key, value in settings.to_config().items())
    return f"""[project]
name = "{name}"
version = "1.0.0"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "fedmunkey"

[tool.flwr.app.components]
serverapp = "{apps[0]}"
clientapp = "{apps[1]}"

[tool.flwr.app.config]
{values}
"""


def flower_program(name: str) -> str:
    """Return a program of Flower's from the environment that this interpreter belongs to."""
    return str(Path(sys.executable).with_name(name))


def flower_environment(home: Path) -> dict[str, str]:
    """Return what Flower's processes need beside this process's environment; what they write goes to `home`."""
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join([str(IMPORT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }


def serve_from_file(kind: type[_File], serve: Callable[[_File], None], spoken: logging.Logger) -> None:
    """Serve one of Flower's parts as a program that is given the path of its settings; end it where they are wrong.

    `serve` runs until it is stopped; a `FedmunkeyError` of it ends the program with one line and exit code 2. Flower's
    own lines are written as this program writes all others, once each, and those of `spoken` beside them.
    """
    flower = logging.getLogger("flwr")
    flower.handlers.clear()
    flower.setLevel(logging.INFO)
    try:
        file = kind.read(Path(sys.argv[1]))
        with log_lines(logging.StreamHandler(), file.log_format, spoken):
            serve(file)
    except FedmunkeyError as error:
        sys.stderr.write(f"error: {printable(str(error))}\n")
        sys.exit(EXIT_CODE)


def _toml(value: ConfigValue) -> str:
    """Write a value as TOML, which is as JSON but for infinity."""
    if isinstance(value, float) and math.isinf(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False)
