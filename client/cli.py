"""`munkey-client`: one site's records and the deletions of them, and how to ask for deletions."""

from __future__ import annotations

from client.commands.backup import backup
from client.commands.enrol import enrol
from client.commands.forget import forget
from client.commands.import_ import import_
from client.commands.orders import agent, catch_up
from client.commands.predict import predict
from client.commands.restore import restore
from client.commands.secret import secret
from client.commands.status import status
from client.commands.verify_erasure import verify_erasure
from client.commands.verify_exact import verify_exact
from common import command_line

app = command_line.application("A site of the federation: its records, its deletion agent, and requests to forget.")

for _command in (
    secret,
    enrol,
    agent,
    catch_up,
    forget,
    predict,
    status,
    verify_exact,
    verify_erasure,
    backup,
    restore,
):
    app.command()(_command)
app.command("import")(import_)


def main() -> None:
    """Run `munkey-client`."""
    command_line.run(app)
