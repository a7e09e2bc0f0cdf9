"""`munkey-sim`: hospitals on one machine."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from fedmunkey.common.errors import EXIT_CODE
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.lazy_commands import lazy_group
from fedmunkey.common.stop_signals import ending_at_signals

# Each brings much of its own, torch at least.
_COMMANDS = {
    "run": "fedmunkey.simulations.run.command:run",
    "audit": "fedmunkey.simulations.audit.command:audit",
    "differences": "fedmunkey.simulations.audit.differences_command:differences",
    "compare": "fedmunkey.simulations.comparison.command:compare",
    "hospitals": "fedmunkey.simulations.comparison.hospitals_command:hospitals",
    "memory": "fedmunkey.simulations.comparison.memory.memory_command:memory",
    "encoders": "fedmunkey.simulations.comparison.encoders_command:encoders",
    "report": "fedmunkey.simulations.reporting.command:report",
    "bench": "fedmunkey.simulations.bench.command:bench",
    "faults": "fedmunkey.simulations.faults.command:faults",
    "console-demo": "fedmunkey.simulations.deploy_local.console_command:console_demo",
    "deploy-local": "fedmunkey.simulations.deploy_local.command:deploy_local",
}
_NEEDED = ("ray", "matplotlib", "jsonschema", "threadpoolctl")
"""What an installation of a site or a coordinator leaves out."""

_END_SECONDS = 3.0
"""How long a command may take to tidy up after a signal; what it has started ends with it."""

app = command_line.application("Simulate hospitals that learn together and forget on request.", lazy_group(_COMMANDS))


@app.command(hidden=True)
def command_reference() -> None:
    """Print docs/commands.md: every command of the three programs."""
    # Only here do the programs meet, and the other commands need neither of the two.
    from fedmunkey.client.cli import app as client
    from fedmunkey.common.programs.command_reference import command_reference as rendered
    from fedmunkey.server.cli import app as server

    sys.stdout.write(rendered({"munkey-sim": app, "munkey-server": server, "munkey-client": client}))


@app.command(hidden=True)
def files_reference() -> None:
    """Print docs/files.md: every line of coordinator.toml and site.toml."""
    from fedmunkey.client.supernode.site_file import SiteFile
    from fedmunkey.common.programs.files_reference import files_reference as rendered
    from fedmunkey.server.superlink.coordinator_file import CoordinatorFile

    sys.stdout.write(rendered({"coordinator.toml": CoordinatorFile, "site.toml": SiteFile}))


def main() -> None:
    """Run `munkey-sim`; it ends with one line where the installation lacks what simulations need."""
    if lacking := [name for name in _NEEDED if find_spec(name) is None]:
        sys.stderr.write(
            f"error: munkey-sim needs {lacking[0]}, which this installation leaves out; "
            "pip install 'fedmunkey[simulation]' adds it\n"
        )
        sys.exit(EXIT_CODE)
    with ending_at_signals(_END_SECONDS):
        command_line.run(app)
