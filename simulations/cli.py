"""`munkey-sim`: hospitals on one machine."""

from __future__ import annotations

import sys

from fedmunkey.common.programs import command_line
from fedmunkey.simulations.audit.command import audit
from fedmunkey.simulations.bench.command import bench
from fedmunkey.simulations.comparison.command import compare
from fedmunkey.simulations.comparison.hospitals_command import hospitals
from fedmunkey.simulations.deploy_local.command import deploy_local
from fedmunkey.simulations.faults.command import faults
from fedmunkey.simulations.reporting.command import report
from fedmunkey.simulations.run.command import run

app = command_line.application("Simulate hospitals that learn together and forget on request.")
for command in (run, audit, compare, hospitals, report, bench, faults, deploy_local):
    app.command()(command)


@app.command(hidden=True)
def command_reference() -> None:
    """Print docs/commands.md: every command of the three programs."""
    # Only here do the programs meet, and the other commands need neither of the two.
    from fedmunkey.client.cli import app as client
    from fedmunkey.common.programs.command_reference import command_reference as rendered
    from fedmunkey.server.cli import app as server

    sys.stdout.write(rendered({"munkey-sim": app, "munkey-server": server, "munkey-client": client}))


def main() -> None:
    """Run `munkey-sim`."""
    command_line.run(app)
