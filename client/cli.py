"""`munkey-client`: one site's records and the deletions of them, and how to ask for deletions."""

from __future__ import annotations

from client.commands.keys import keys
from common import command_line
from common.lazy_commands import lazy_group
from common.trust_commands import trust_application

# An agent starts within a second: torch, which takes longer by itself, is imported by the commands that need it.
_COMMANDS = {
    "secret": "client.commands.secret:secret",
    "join": "client.commands.join:join",
    "rotate": "client.commands.rotate:rotate",
    "enrol": "client.commands.enrol:enrol",
    "agent": "client.commands.orders:agent",
    "catch-up": "client.commands.orders:catch_up",
    "forget": "client.commands.forget:forget",
    "predict": "client.commands.predict:predict",
    "status": "client.commands.status:status",
    "certificate": "client.commands.certificate:certificate",
    "verify": "client.commands.verify:verify",
    "verify-exact": "client.commands.verify_exact:verify_exact",
    "verify-erasure": "client.commands.verify_erasure:verify_erasure",
    "backup": "client.commands.backup:backup",
    "restore": "client.commands.restore:restore",
    "import": "client.commands.import_:import_",
    "up": "client.deployment.up:up",
}

app = command_line.application(
    "A site of the federation: its records, its deletion agent, and requests to forget.",
    lazy_group(_COMMANDS, {"request": "forget"}),
)
app.add_typer(keys, name="keys")
app.add_typer(trust_application("munkey-client"), name="trust")


def main() -> None:
    """Run `munkey-client`."""
    command_line.run(app)
