"""`munkey-server requests`, `request` and `extend`: what has become of deletion requests."""

from __future__ import annotations

from typing import Annotated

import typer

from fedmunkey.common.deletions import status_words
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.options import JsonOption, ServiceOption
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.server.commands import display
from fedmunkey.server.commands.options import DEFAULT_ADDRESS, DatabaseOption, FolderOption, folder_of, identity_of
from fedmunkey.server.ledger.due import LONGEST_EXTENSION_DAYS
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.coordinator_folder import ledger_that_is_there


def requests(
    service: ServiceOption = DEFAULT_ADDRESS,
    coordinator_dir: FolderOption = None,
    late: Annotated[bool, typer.Option("--late", help="Only those whose time has run out.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List every deletion request and what has become of it.

    Example: munkey-server requests --service 127.0.0.1:9440 --late
    """
    with DeletionChannel(service, identity=identity_of(coordinator_dir)) as channel:
        statuses = list(channel.requests(late=late))
    documents = [display.request_document(status) for status in statuses]
    command_line.show(documents, as_json, display.request_table(statuses))


def request(
    request_id: Annotated[str, typer.Argument(help="The request's id.", show_default=False)],
    service: ServiceOption = DEFAULT_ADDRESS,
    coordinator_dir: FolderOption = None,
    history: Annotated[bool, typer.Option("--history", help="Also show what happened, and when.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show one deletion request, site by site.

    Example: munkey-server request 6f1c0a52 --service 127.0.0.1:9440 --history
    """
    with DeletionChannel(service, identity=identity_of(coordinator_dir)) as channel:
        status = channel.get(request_id)
        moves = channel.history(request_id) if history else None
    command_line.show(
        display.request_document(status, moves),
        as_json,
        display.request_table([status]),
        *([f"given more time: {status.extension}"] if status.extension else ()),
        command_line.filled_table(*status_words.progress_rows(status, times=True)),
        *(() if moves is None else [display.history_table(moves)]),
    )


def extend(
    request_id: Annotated[str, typer.Argument(help="The request's id.", show_default=False)],
    days: Annotated[int, typer.Option(help=f"How many more days, at most {LONGEST_EXTENSION_DAYS}.")],
    reason: Annotated[str, typer.Option(help="Why; the requester can read it. No patient's name.")],
    database: DatabaseOption = None,
    coordinator_dir: FolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a request more time, once, for a reason.

    The service may be running meanwhile.

    Example: munkey-server extend 6f1c0a52 --days 30 --reason "hospital-2 restores its server" --database ledger.sqlite
    """
    with Ledger(ledger_that_is_there(database, folder_of(coordinator_dir))) as opened:
        status = opened.extend(request_id, days, reason)
    due = f"request {request_id} is due on {status.due_at:%Y-%m-%d}; it is {status.state}"
    command_line.show(display.request_document(status), as_json, due)
