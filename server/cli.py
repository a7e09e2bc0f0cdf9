"""`munkey-server`: runs the deletion service and shows what has become of requests."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from common import command_line
from common.deletion import Records, RequestStatus, Subject
from common.deletion_channel import DeletionChannel, is_loopback, split_address
from common.settings import Settings
from common.trust_commands import trust_application
from common.trusted_keys import TrustedKeys
from server.deletion_server import DeletionServer
from server.deletion_service import LedgerService
from server.ledger import Ledger
from server.log import TransparencyLog
from server.log_key import open_log_key
from server.proofs import CoordinatorProofs

DEFAULT_ADDRESS: str = Settings.model_fields["deletion_service"].default

app = command_line.application("The coordinator's deletion service.")
app.add_typer(trust_application("munkey-server"), name="trust")

_LedgerOption = Annotated[
    str, typer.Option("--ledger", help="SQLite file or SQLAlchemy URL of the ledger; a file is made if there is none.")
]
_ServiceOption = Annotated[str, typer.Option("--service", help="Address of the deletion service, host:port.")]
_JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def serve(
    ledger: _LedgerOption = "ledger.sqlite",
    address: Annotated[str, typer.Option(help="Where to listen, host:port; port 0 takes one that is free.")] = (
        DEFAULT_ADDRESS
    ),
    site: Annotated[list[str] | None, typer.Option(help="Site to register first; may be repeated.")] = None,
    keys: Annotated[
        Path | None,
        typer.Option(help="File of trusted keys: unsigned requests and answers without a receipt are refused."),
    ] = None,
    log_key: Annotated[
        Path | None, typer.Option(help="Key of the transparency log; beside the ledger by default, made if missing.")
    ] = None,
) -> None:
    """Serve deletions until SIGINT or SIGTERM.

    Signed requests and receipts go into a transparency log; hand the public part of its key to the sites.

    Example: munkey-server serve --ledger ledger.sqlite --site hospital-1 --site hospital-2
    """
    with _stop_signals() as stopping, Ledger(ledger) as opened:
        for name in site or []:
            opened.register(name)
        place, signing = open_log_key(log_key, ledger)
        if keys is not None:
            # A file that cannot be used is found before anything is served.
            TrustedKeys.read(keys)
        service = LedgerService(opened, proofs=CoordinatorProofs(TransparencyLog(opened.engine, signing), keys))
        with DeletionServer(service, address) as server:
            if not is_loopback(split_address(address)[0]):
                sys.stderr.write(
                    f"warning: connections to {server.address} are neither encrypted nor authenticated; "
                    "anyone who reaches this address can ask for deletions\n"
                )
            sites = len(opened.sites())
            about = f"ledger {opened.name}, {sites} sites, log key {place} ({signing.public.raw.hex()})"
            typer.echo(f"deletion service at {server.address}, {about}")
            sys.stdout.flush()
            stopping.wait()
        service.close()


@app.command()
def sites(
    ledger: _LedgerOption = "ledger.sqlite",
    add: Annotated[list[str] | None, typer.Option(help="Site to register; may be repeated.")] = None,
    as_json: _JsonOption = False,
) -> None:
    """List or register the sites of the federation.

    The service may be running meanwhile.

    Example: munkey-server sites --ledger ledger.sqlite --add hospital-3
    """
    with Ledger(ledger) as opened:
        for name in add or []:
            opened.register(name)
        registered = opened.sites()
    if as_json:
        command_line.print_json(
            [
                {
                    "site": site.name,
                    "registered_at": site.registered_at.isoformat(),
                    "orders": site.orders,
                    "pending": site.pending,
                }
                for site in registered
            ]
        )
        return
    table = _table("site", "registered", numbers=("orders", "pending"))
    for site in registered:
        table.add_row(site.name, _time(site.registered_at), str(site.orders), str(site.pending))
    command_line.print_table(table)


@app.command()
def requests(service: _ServiceOption = DEFAULT_ADDRESS, as_json: _JsonOption = False) -> None:
    """List every deletion request and what has become of it.

    Example: munkey-server requests --service 127.0.0.1:9440
    """
    with DeletionChannel(service) as channel:
        statuses = list(channel.requests())
    if as_json:
        command_line.print_json([command_line.status_document(status) for status in statuses])
        return
    table = _table(
        "request", "requester", "target", "submitted", "state", "guarantee", "epsilon", numbers=_REQUEST_NUMBERS
    )
    for status in statuses:
        _add_request(table, status)
    command_line.print_table(table)


@app.command()
def request(
    request_id: Annotated[str, typer.Argument(help="The request's id.", show_default=False)],
    service: _ServiceOption = DEFAULT_ADDRESS,
    as_json: _JsonOption = False,
) -> None:
    """Show one deletion request, site by site.

    Example: munkey-server request 6f1c0a52 --service 127.0.0.1:9440
    """
    with DeletionChannel(service) as channel:
        status = channel.get(request_id)
    if as_json:
        command_line.print_json(command_line.status_document(status))
        return
    table = _table(
        "request", "requester", "target", "submitted", "state", "guarantee", "epsilon", numbers=_REQUEST_NUMBERS
    )
    _add_request(table, status)
    command_line.print_table(table)
    table = _table(
        "site",
        "state",
        "guarantee",
        "epsilon",
        "answered",
        "reason",
        numbers=("order", "records", "entries", "seconds"),
    )
    for progress in status.sites:
        answer = progress.acknowledgement
        table.add_row(
            progress.site,
            progress.state.value,
            answer.guarantee.value if answer else "",
            command_line.epsilon_words(answer) if answer else "",
            _time(progress.acknowledged_at) if progress.acknowledged_at else "",
            answer.reason if answer else "",
            str(progress.number),
            *((str(answer.records), str(answer.entries), f"{answer.seconds:.3f}") if answer else ()),
        )
    command_line.print_table(table)


def main() -> None:
    """Run `munkey-server`."""
    command_line.run(app)


_REQUEST_NUMBERS = ("answered", "records", "seconds")


def _table(*words: str, numbers: tuple[str, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in words:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, no_wrap=True, justify="right")
    return table


def _add_request(table: Table, status: RequestStatus) -> None:
    guarantee = command_line.weakest_guarantee(status)
    answered = sum(progress.state.final for progress in status.sites)
    table.add_row(
        status.request.request_id,
        status.request.requester,
        _target(status),
        _time(status.submitted_at),
        status.state.value,
        guarantee.value if guarantee else "",
        command_line.loss_words(command_line.combined_loss(status)),
        f"{answered}/{len(status.sites)}",
        str(status.erased),
        "" if status.seconds is None else f"{status.seconds:.3f}",
    )


def _target(status: RequestStatus) -> str:
    target = status.request.target
    if isinstance(target, Records):
        where = f"at {target.site}" if target.site else "anywhere"
        return f"{len(target.references)} record{'s' * (len(target.references) != 1)} {where}"
    if isinstance(target, Subject):
        return f"subject {target.reference.hex()[:12]}"
    return f"all of {target.site}"


def _time(time: Any) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}Z"


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Give an event that is set by SIGINT and SIGTERM, which end the process no more until the context ends."""
    stopping = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopping.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
