"""`munkey-client`: one site's records and the deletions of them, and how to ask for deletions."""

from __future__ import annotations

from client.commands.backup import backup
from client.commands.certificate import certificate
from client.commands.enrol import enrol
from client.commands.forget import forget
from client.commands.import_ import import_
from client.commands.join import join
from client.commands.keys import keys
from client.commands.orders import agent, catch_up
from client.commands.predict import predict
from client.commands.request import request
from client.commands.restore import restore
from client.commands.rotate import rotate
from client.commands.secret import secret
from client.commands.status import status
from client.commands.verify import verify
from client.commands.verify_erasure import verify_erasure
from client.commands.verify_exact import verify_exact
from common import command_line
from common.trust_commands import trust_application

app = command_line.application("A site of the federation: its records, its deletion agent, and requests to forget.")

for _command in (
    secret,
    join,
    rotate,
    enrol,
    agent,
    catch_up,
    forget,
    request,
    predict,
    status,
    certificate,
    verify,
    verify_exact,
    verify_erasure,
    backup,
    restore,
):
    app.command()(_command)
app.command("import")(import_)
app.add_typer(keys, name="keys")
app.add_typer(trust_application("munkey-client"), name="trust")


def main() -> None:
    """Run `munkey-client`."""
    command_line.run(app)
