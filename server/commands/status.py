"""`munkey-server status`: how the federation stands."""

from __future__ import annotations

from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.options import JsonOption
from fedmunkey.server.commands import display
from fedmunkey.server.commands.options import DatabaseOption, FolderOption, folder_of
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.coordinator_folder import ledger_that_is_there


def status(database: DatabaseOption = None, coordinator_dir: FolderOption = None, as_json: JsonOption = False) -> None:
    """Show which sites are connected, what is pending and since when, and what is late.

    It reads the ledger, whether the service runs or not.

    Example: munkey-server status --database ledger.sqlite
    """
    with Ledger(ledger_that_is_there(database, folder_of(coordinator_dir))) as opened:
        summary, known = opened.summary(), opened.sites()
    document = display.summary_document(summary, known)
    command_line.show(document, as_json, *display.summary_lines(summary), display.site_table(known))
