"""`munkey-server console`: the federation in a browser, for whoever runs the coordinator, and for members to read."""

from __future__ import annotations

import sys
import threading
import webbrowser
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.programs.options import ServiceOption
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.settings.addresses import split_address
from fedmunkey.server.commands.options import (
    DEFAULT_ADDRESS,
    DatabaseOption,
    FolderOption,
    KeysOption,
    folder_of,
    identity_of,
    trust_of,
)
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder, ledger_that_is_there
from fedmunkey.server.members.recovery import open_register
from fedmunkey.server.members.register import MemberRegister

# A web framework takes half a second to import, which no other command should wait for.
if TYPE_CHECKING:
    from fedmunkey.common.console.face import Face
    from fedmunkey.server.console.desk import Desk

DEFAULT_LISTEN = "127.0.0.1:9461"

_AUDITS = "audits"


def console(
    coordinator_dir: FolderOption = None,
    database: DatabaseOption = None,
    service: ServiceOption = DEFAULT_ADDRESS,
    keys: KeysOption = None,
    listen: Annotated[
        str, typer.Option(help="Where the operator's browser finds it: an address of this machine; port 0 is free.")
    ] = DEFAULT_LISTEN,
    members_address: Annotated[
        str | None,
        typer.Option(help="Where members' browsers find it, host:port, by their certificates; not served if left out."),
    ] = None,
    joining_address: Annotated[
        str | None, typer.Option(help="Where members join, host:port, as invitations say it; none are made without.")
    ] = None,
    audits: Annotated[
        Path | None, typer.Option(help="Folder with reports of audits, JSON; audits in the coordinator's by default.")
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the operator's link in this machine's browser.")
    ] = True,
) -> None:
    """Show the federation in a browser until SIGINT or SIGTERM: requests, sites, members, models, evidence and the log.

    The operator opens a link, on this machine: one session each, Enter prints another. Whatever the operator does
    there, a command does as well: extend, sites, invite, revoke. With --members-address, members see what they may
    read, known by their own certificates over mutual TLS, and do nothing.

    Example: munkey-server console --coordinator-dir coordinator --members-address 0.0.0.0:9462
    """
    from fedmunkey.common.console.serving import Serving, serve, server_for
    from fedmunkey.common.console.serving import listen as listen_at
    from fedmunkey.server.console.application import make_members_console, make_operators_console
    from fedmunkey.server.console.members_server import MembersServer

    for given in (service, joining_address, members_address):
        if given is not None:
            split_address(given)
    folder, identity = folder_of(coordinator_dir), identity_of(coordinator_dir)
    if members_address is not None and folder is None:
        raise InvalidSetting("--members-address needs --coordinator-dir, whose authority has signed their certificates")
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(ledger_that_is_there(database, folder)))
        listening, address = listen_at(listen)
        stack.enter_context(listening)
        channel = stack.enter_context(DeletionChannel(service, identity=identity))
        desk = _make_desk(ledger, channel, folder, trust_of(keys, folder), audits, joining_address or "")
        operators = make_operators_console(desk, on_closed=lambda: _say(operators, address)).named(address)
        faces, servings = [operators], [Serving(server_for(operators.app, address), [listening])]
        where = ""
        if members_address is not None and desk.register is not None and identity is not None:
            faces.append(make_members_console(desk, desk.register))
            served = MembersServer.listening(faces[-1], members_address, identity)
            servings.append(served.serving)
            where = f", for members at {faces[-1].entrance.address(served.address)}"

        def begin() -> None:
            typer.echo(f"console of the coordinator on {ledger.name}{where}")
            link = _say(operators, address)
            if sys.stdin.isatty():
                threading.Thread(target=_give_links, args=(operators, address), daemon=True).start()
            if browser:
                webbrowser.open(link)

        def stop() -> None:
            desk.sources.ended.set()
            for face in faces:
                face.lives.close()
            channel.close()

        serve(servings, begin, stop)


def _make_desk(
    ledger: Ledger,
    channel: DeletionChannel,
    folder: CoordinatorFolder | None,
    trust: Path | None,
    audits: Path | None,
    joining: str,
) -> Desk:
    from fedmunkey.server.console.desk import Desk
    from fedmunkey.server.console.reading import Sources

    register = None if folder is None else _open_register(folder, ledger)
    home = CoordinatorFolder(Path()) if folder is None else folder
    desk = Desk(Sources.of(ledger, channel), trust, folder, register, home.runs, audits or home.path / _AUDITS, joining)
    # A file that cannot be used is found before anything is served.
    desk.read_keys()
    return desk


def _open_register(folder: CoordinatorFolder, ledger: Ledger) -> MemberRegister:
    register, lost = open_register(folder, ledger)
    for line in lost:
        typer.echo(line, err=True)
    return register


def _give_links(face: Face, address: str) -> None:
    """Print a link for each line that is entered."""
    for _ in sys.stdin:
        _say(face, address)


def _say(face: Face, address: str) -> str:
    from fedmunkey.common.console.serving import LINK_LINE

    link = face.entrance.address(address)
    typer.echo(f"{LINK_LINE}{link}")
    return link
