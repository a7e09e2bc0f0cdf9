"""`munkey-server`: runs the coordinator and shows what has become of requests."""

from __future__ import annotations

from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.lazy_commands import lazy_group
from fedmunkey.common.programs.trust_commands import trust_application
from fedmunkey.server.superlink.configuration import COORDINATOR

# Training brings torch, and what serves brings gRPC: no command waits for what only another one needs.
_COMMANDS = {
    "up": "fedmunkey.server.superlink.up:up",
    "doctor": "fedmunkey.server.superlink.doctor:doctor",
    "run": "fedmunkey.server.superlink.run_command:run",
    "runs": "fedmunkey.server.superlink.runs_command:runs",
    "init": "fedmunkey.server.commands.members:init",
    "renew": "fedmunkey.server.commands.members:renew",
    "invite": "fedmunkey.server.commands.members:invite",
    "members": "fedmunkey.server.commands.members:members",
    "allow": "fedmunkey.server.commands.members:allow",
    "keys": "fedmunkey.server.commands.keys:keys",
    "revoke": "fedmunkey.server.commands.members:revoke",
    "serve": "fedmunkey.server.commands.serve:serve",
    "restored": "fedmunkey.server.commands.restored:restored",
    "sites": "fedmunkey.server.commands.sites:sites",
    "requests": "fedmunkey.server.commands.requests:requests",
    "request": "fedmunkey.server.commands.requests:request",
    "extend": "fedmunkey.server.commands.requests:extend",
    "status": "fedmunkey.server.commands.status:status",
    "console": "fedmunkey.server.commands.console:console",
}

_CARD = {
    "make": "fedmunkey.server.commands.card:make",
    "show": "fedmunkey.server.commands.card:show",
}
_CARD_HELP = """The federation card: what all members must agree on before anything is computed.

Example: munkey-server card make --class benign --class malignant --image-shape 1x28x28
"""

_PLAIN = {"serve", "runs"}
"""What is told everything by whoever starts it, and what finds the file for all its commands."""

app = command_line.application(
    "The coordinator: its members, deletions and training runs.",
    lazy_group(_COMMANDS, kinds=dict.fromkeys(_COMMANDS.keys() - _PLAIN, COORDINATOR.command())),
)
app.add_typer(trust_application("munkey-server", COORDINATOR), name="trust")
app.add_typer(
    command_line.application(_CARD_HELP, lazy_group(_CARD, kinds=dict.fromkeys(_CARD, COORDINATOR.command()))),
    name="card",
)


def main() -> None:
    """Run `munkey-server`."""
    command_line.run(app)
