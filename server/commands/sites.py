"""`munkey-server sites`: which sites the federation has."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fedmunkey.common.errors import InvalidSetting, count_of
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.options import JsonOption
from fedmunkey.server.commands import display
from fedmunkey.server.commands.options import DatabaseOption, FolderOption, folder_of
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.coordinator_folder import ledger_of, ledger_that_is_there


def sites(
    database: DatabaseOption = None,
    coordinator_dir: FolderOption = None,
    add: Annotated[
        list[str] | None, typer.Option(help="Site to register, or to bring back if it had left; may be repeated.")
    ] = None,
    remove: Annotated[list[str] | None, typer.Option(help="Site that leaves the federation; may be repeated.")] = None,
    reason: Annotated[str, typer.Option(help="Why it leaves; no patient's name.")] = "",
    as_json: JsonOption = False,
) -> None:
    """List, register or remove the sites of the federation.

    The service may be running meanwhile. Requests that a site which leaves has not answered end as partial.

    Example: munkey-server sites --database ledger.sqlite --add hospital-3 --remove hospital-1 --reason "it has closed"
    """
    if both := set(add or []) & set(remove or []):
        raise InvalidSetting(f"--add and --remove both name {min(both)!r}; say which of the two is meant")
    place = ledger_of if add else ledger_that_is_there
    with Ledger(place(database, folder_of(coordinator_dir))) as opened:
        for name in add or []:
            opened.register(name)
        for name in remove or []:
            open_orders = opened.remove(name, reason)
            sys.stderr.write(f"{name} has left; {count_of(open_orders, 'order')} that it has not answered\n")
        known = opened.sites()
    command_line.show([display.site_document(site) for site in known], as_json, display.site_table(known))
