"""`munkey-client`: one site's records and the deletions of them, and how to ask for deletions."""

from __future__ import annotations

from fedmunkey.client.commands.signing_keys import signing_keys
from fedmunkey.client.supernode.configuration import SITE
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.lazy_commands import lazy_group
from fedmunkey.common.programs.trust_commands import trust_application

# An agent starts within a second: torch, which takes longer by itself, is imported by the commands that need it.
_COMMANDS = {
    "secret": "fedmunkey.client.commands.secret:secret",
    "join": "fedmunkey.client.commands.join:join",
    "rotate": "fedmunkey.client.commands.rotate:rotate",
    "enrol": "fedmunkey.client.commands.enrol:enrol",
    "encoder-card": "fedmunkey.client.commands.encoder_card:encoder_card",
    "agent": "fedmunkey.client.commands.orders:agent",
    "catch-up": "fedmunkey.client.commands.orders:catch_up",
    "forget": "fedmunkey.client.commands.forget:forget",
    "countersign": "fedmunkey.client.commands.countersign:countersign",
    "rectify": "fedmunkey.client.commands.rectify:rectify",
    "console": "fedmunkey.client.commands.console:console",
    "predict": "fedmunkey.client.commands.predict:predict",
    "serve-predictions": "fedmunkey.client.commands.serve_predictions:serve_predictions",
    "export": "fedmunkey.client.commands.export:export",
    "recall": "fedmunkey.client.commands.recall:recall",
    "ids": "fedmunkey.client.commands.ids:ids",
    "status": "fedmunkey.client.commands.status:status",
    "certificate": "fedmunkey.client.commands.certificate:certificate",
    "verify": "fedmunkey.client.commands.verify:verify",
    "verify-exact": "fedmunkey.client.commands.verify_exact:verify_exact",
    "verify-erasure": "fedmunkey.client.commands.verify_erasure:verify_erasure",
    "backup": "fedmunkey.client.commands.backup:backup",
    "restore": "fedmunkey.client.commands.restore:restore",
    "import": "fedmunkey.client.commands.import_:import_",
    "doctor": "fedmunkey.client.supernode.doctor:doctor",
    "up": "fedmunkey.client.supernode.up:up",
}

_WITHOUT_FILE = {"secret", "verify"}
"""What has nothing to do with a site's folder or its coordinator."""

_HOLD = {
    "place": "fedmunkey.client.commands.instructions:place_hold",
    "release": "fedmunkey.client.commands.instructions:release_hold",
    "list": "fedmunkey.client.commands.instructions:list_holds",
}
_HOLD_HELP = """Legal holds: what must not be erased, whoever asks, until an officer who may approve releases it.

Example: munkey-client hold list --identity officer --service coordinator.example.org:9440
"""
_OPT_OUT = {
    "add": "fedmunkey.client.commands.instructions:add_opt_out",
    "end": "fedmunkey.client.commands.instructions:end_opt_out",
    "list": "fedmunkey.client.commands.instructions:list_opt_outs",
}
_OPT_OUT_HELP = """The opt-out list: what no round, import or export of any site uses.

Example: munkey-client opt-out list --identity officer --service coordinator.example.org:9440
"""
_CARD = {
    "show": "fedmunkey.client.commands.card:show",
    "accept": "fedmunkey.client.commands.card:accept",
    "propose": "fedmunkey.client.commands.card:propose",
}
_CARD_HELP = """The federation card: what all members must agree on before anything is computed.

Example: munkey-client card show --site-dir hospital-1
"""

app = command_line.application(
    "A site of the federation: its records, its deletion agent, and requests to forget.",
    lazy_group(_COMMANDS, {"request": "forget"}, dict.fromkeys(_COMMANDS.keys() - _WITHOUT_FILE, SITE.command())),
)
app.add_typer(signing_keys, name="signing-keys")
# Its name in scripts of before.
app.add_typer(signing_keys, name="keys", hidden=True)
app.add_typer(trust_application("munkey-client", SITE), name="trust")
app.add_typer(
    command_line.application(_CARD_HELP, lazy_group(_CARD, kinds=dict.fromkeys(_CARD, SITE.command()))), name="card"
)

for _name, _commands, _help in (("hold", _HOLD, _HOLD_HELP), ("opt-out", _OPT_OUT, _OPT_OUT_HELP)):
    _group = lazy_group(_commands, kinds=dict.fromkeys(_commands, SITE.command()))
    app.add_typer(command_line.application(_help, _group), name=_name)


def main() -> None:
    """Run `munkey-client`."""
    command_line.run(app)
