"""`munkey-server`: runs the coordinator and shows what has become of requests."""

from __future__ import annotations

import resource
import sys
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions import status_words
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.identities import Identity
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.lazy_commands import lazy_group
from fedmunkey.common.programs.log_format import LogFormat
from fedmunkey.common.programs.options import JsonOption, ServiceOption
from fedmunkey.common.programs.trust_commands import trust_application
from fedmunkey.common.proofs.restored_log import RestoredLog
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.trusted_keys import TrustedKeys
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.settings.addresses import is_loopback, split_address
from fedmunkey.common.settings.settings import RENEW_DAYS, Settings
from fedmunkey.common.stop_signals import StopAsked, stopped_by_signals
from fedmunkey.server.commands import display
from fedmunkey.server.commands import members as member_commands
from fedmunkey.server.deletions.coordinator_proofs import CoordinatorProofs
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.deletions.metrics import served_metrics
from fedmunkey.server.deletions.move_log import logging_to
from fedmunkey.server.ledger.due import DUE_DAYS, LONGEST_EXTENSION_DAYS
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.coordinator_folder import (
    DATABASE_VARIABLE,
    CoordinatorFolder,
    ledger_of,
    ledger_that_is_there,
)
from fedmunkey.server.members.joining import Joining, JoiningServer
from fedmunkey.server.members.recovery import open_register, serving_register
from fedmunkey.server.transparency_log.log import TransparencyLog, head_signer
from fedmunkey.server.transparency_log.log_key import open_log_key
from fedmunkey.server.transparency_log.restating import enter_restored, read_statement, state_restored, write_statement

DEFAULT_ADDRESS: str = Settings.model_fields["deletion_service"].default

# Training brings torch, whose import would slow down every other command.
_LATER = {
    "up": "fedmunkey.server.superlink.up:up",
    "run": "fedmunkey.server.superlink.run_command:run",
    "runs": "fedmunkey.server.superlink.runs_command:runs",
}

app = command_line.application("The coordinator: its members, deletions and training runs.", lazy_group(_LATER))
app.add_typer(trust_application("munkey-server"), name="trust")
for _command in (
    member_commands.init,
    member_commands.renew,
    member_commands.invite,
    member_commands.members,
    member_commands.revoke,
):
    app.command()(_command)

_TURN_SECONDS = 0.0005
_DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database",
        "--ledger",
        envvar=DATABASE_VARIABLE,
        help="The ledger: an SQLite file, made if there is none, or postgresql://user@host/database; "
        "by default where the coordinator's folder has it, or ledger.sqlite. "
        f"A password in it belongs into {DATABASE_VARIABLE} or ~/.pgpass, which no other user reads.",
        show_default=False,
    ),
]
_FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--coordinator-dir", help="The coordinator's folder, made by munkey-server init: connections are mutual TLS."
    ),
]
_KeysOption = Annotated[
    Path | None,
    typer.Option(
        help="File of trusted keys: unsigned requests and answers without a receipt are refused. "
        "trust.json in the coordinator's folder by default, if it is there."
    ),
]
_LogKeyOption = Annotated[
    Path | None,
    typer.Option(
        help="Key of the transparency log; in the coordinator's folder or beside the ledger by default, "
        "made if missing."
    ),
]


@app.command()
def serve(
    database: _DatabaseOption = None,
    address: Annotated[str, typer.Option(help="Where to listen, host:port; port 0 takes one that is free.")] = (
        DEFAULT_ADDRESS
    ),
    coordinator_dir: _FolderOption = None,
    joining_address: Annotated[
        str | None, typer.Option(help="Where to let invited members join, host:port; nobody can join if left out.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen in plain text where other machines reach it.")
    ] = False,
    site: Annotated[list[str] | None, typer.Option(help="Site to register first; may be repeated.")] = None,
    keys: _KeysOption = None,
    log_key: _LogKeyOption = None,
    metrics: Annotated[
        str | None, typer.Option(help="Where to serve Prometheus metrics, host:port; not served if left out.")
    ] = None,
    log_format: Annotated[LogFormat, typer.Option(help="How log lines on stderr are written.")] = LogFormat.TEXT,
    due_days: Annotated[
        int, typer.Option(min=1, max=365, help="Days from a request's submission to when it is late.")
    ] = DUE_DAYS,
    renew_days: Annotated[
        float,
        typer.Option(min=0.0, max=365, help="Days within which shared weights are renewed after a deletion (exact)."),
    ] = RENEW_DAYS,
) -> None:
    """Serve deletions until SIGINT or SIGTERM.

    With --coordinator-dir, members are known by their certificates; without it, everybody who reaches the address is
    taken for whom he says he is, so it must be this machine's own.
    Signed requests and receipts go into a transparency log; hand the public part of its key to the sites. Several
    processes may serve one ledger at once, on one PostgreSQL database or one SQLite file, with the same key.

    Example: munkey-server serve --coordinator-dir coordinator --address 0.0.0.0:9440 --joining-address 0.0.0.0:9441
    """
    folder = _folder_of(coordinator_dir)
    _check_exposure(address, folder, joining_address, insecure=insecure)
    identity = None if folder is None else folder.read_identity()
    authority = None if folder is None else folder.read_authority()
    if database is not None and folder is not None and (before := folder.note_ledger(database)) != folder.ledger:
        sys.stderr.write(f"warning: the ledger is {folder.ledger} from now on; it was {before}\n")
    database = ledger_of(database, folder)
    keys = _trust_of(keys, folder)
    _allow_many_connections()
    _take_short_turns()
    stop = StopAsked()
    with stopped_by_signals(stop.ask), ExitStack() as stack:
        opened = stack.enter_context(Ledger(database, due=timedelta(days=due_days), renew=timedelta(days=renew_days)))
        stack.enter_context(logging_to(sys.stderr, log_format, opened))
        for name in site or []:
            opened.register(name)
        place, signing = _log_key_of(log_key, database, folder, opened)
        if keys is not None:
            # A file that cannot be used is found before anything is served.
            TrustedKeys.read(keys)
        register = None if folder is None else serving_register(folder, opened)
        service = LedgerService(opened, proofs=CoordinatorProofs(TransparencyLog(opened.engine, signing), keys))
        with DeletionServer(service, address, identity=identity, register=register, authority=authority) as server:
            measured = ""
            if joining_address is not None and folder and identity and authority and register:
                joining = Joining(register, opened, authority, signing.public, keys or folder.trust)
                joined = stack.enter_context(JoiningServer(joining, joining_address, identity))
                measured = f", joining at {joined.address}"
            if metrics is not None:
                measured += f", metrics at {stack.enter_context(served_metrics(opened, metrics, server.refusals))}"
            secured = "" if identity is None else ", mutual TLS"
            _announce(server, opened, place, signing, f"{secured}{measured}")
            stop.wait()
        service.close()


@app.command()
def restored(
    reason: Annotated[
        str | None, typer.Option(help="Why: one line, which everybody can read. It is signed with the log's key.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=0, help="Leaves of the log in the copy; what the log has now if nothing came since."),
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Where to write what an officer is to sign.")] = None,
    signed: Annotated[
        Path | None, typer.Option(help="What munkey-client countersign has written: enter it in the log.")
    ] = None,
    database: _DatabaseOption = None,
    coordinator_dir: _FolderOption = None,
    keys: _KeysOption = None,
    log_key: _LogKeyOption = None,
) -> None:
    """Say that the ledger, and the log in it, were restored from a copy, so that sites follow them again.

    First with --reason and --save, at once after the copy was put back; an officer signs the file (munkey-client
    countersign --save), and --signed enters it. Sites that have seen more of the log than the copy held raise an alarm
    until then, keep what they had seen, and say from then on that it is lost. The service may be running meanwhile.
    What the ledger lost of its members comes back from the coordinator's folder, and is named.

    Example: munkey-server restored --reason "the disk failed" --save restored.json --coordinator-dir coordinator
    """
    if (reason is None) != (save is None) or (reason is None) == (signed is None):
        raise InvalidSetting("give --reason and --save to write a statement, or --signed to enter one")
    folder = _folder_of(coordinator_dir)
    database = ledger_that_is_there(database, folder)
    trust = _trust_of(keys, folder)
    with Ledger(database) as opened:
        _, key = _log_key_of(log_key, database, folder, opened)
        log = TransparencyLog(opened.engine, key)
        if signed is not None:
            trusted = None if trust is None else TrustedKeys.read(trust)
            leaves = enter_restored(log, key, read_statement(signed), trusted)
            typer.echo(
                f"the log has {leaves} leaves, and says that it was restored; sites follow it at their next look"
            )
        elif reason is not None and save is not None:
            for line in () if folder is None else open_register(folder, opened, lost=True)[1]:
                typer.echo(line)
            statement = state_restored(log, key, reason, size, utc_now())
            write_statement(save, statement)
            typer.echo(
                f"{save}: the log was {RestoredLog.of(statement).words}; nothing is entered yet. An officer signs: "
                f"munkey-client countersign {save} --signing-key KEY --save FILE; then munkey-server restored "
                "--signed FILE"
            )


@app.command()
def sites(
    database: _DatabaseOption = None,
    coordinator_dir: _FolderOption = None,
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
    with Ledger(place(database, _folder_of(coordinator_dir))) as opened:
        for name in add or []:
            opened.register(name)
        for name in remove or []:
            open_orders = opened.remove(name, reason)
            sys.stderr.write(f"{name} has left; {open_orders} orders that it has not answered\n")
        known = opened.sites()
    command_line.show([display.site_document(site) for site in known], as_json, display.site_table(known))


@app.command()
def requests(
    service: ServiceOption = DEFAULT_ADDRESS,
    coordinator_dir: _FolderOption = None,
    late: Annotated[bool, typer.Option("--late", help="Only those whose time has run out.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List every deletion request and what has become of it.

    Example: munkey-server requests --service 127.0.0.1:9440 --late
    """
    with DeletionChannel(service, identity=_identity_of(coordinator_dir)) as channel:
        statuses = list(channel.requests(late=late))
    documents = [display.request_document(status) for status in statuses]
    command_line.show(documents, as_json, display.request_table(statuses))


@app.command()
def request(
    request_id: Annotated[str, typer.Argument(help="The request's id.", show_default=False)],
    service: ServiceOption = DEFAULT_ADDRESS,
    coordinator_dir: _FolderOption = None,
    history: Annotated[bool, typer.Option("--history", help="Also show what happened, and when.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show one deletion request, site by site.

    Example: munkey-server request 6f1c0a52 --service 127.0.0.1:9440 --history
    """
    with DeletionChannel(service, identity=_identity_of(coordinator_dir)) as channel:
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


@app.command()
def extend(
    request_id: Annotated[str, typer.Argument(help="The request's id.", show_default=False)],
    days: Annotated[int, typer.Option(help=f"How many more days, at most {LONGEST_EXTENSION_DAYS}.")],
    reason: Annotated[str, typer.Option(help="Why; the requester can read it. No patient's name.")],
    database: _DatabaseOption = None,
    coordinator_dir: _FolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a request more time, once, for a reason.

    The service may be running meanwhile.

    Example: munkey-server extend 6f1c0a52 --days 30 --reason "hospital-2 restores its server" --database ledger.sqlite
    """
    with Ledger(ledger_that_is_there(database, _folder_of(coordinator_dir))) as opened:
        status = opened.extend(request_id, days, reason)
    due = f"request {request_id} is due on {status.due_at:%Y-%m-%d}; it is {status.state}"
    command_line.show(display.request_document(status), as_json, due)


@app.command()
def status(
    database: _DatabaseOption = None, coordinator_dir: _FolderOption = None, as_json: JsonOption = False
) -> None:
    """Show which sites are connected, what is pending and since when, and what is late.

    It reads the ledger, whether the service runs or not.

    Example: munkey-server status --database ledger.sqlite
    """
    with Ledger(ledger_that_is_there(database, _folder_of(coordinator_dir))) as opened:
        summary, known = opened.summary(), opened.sites()
    document = display.summary_document(summary, known)
    command_line.show(document, as_json, *display.summary_lines(summary), display.site_table(known))


def _trust_of(keys: Path | None, folder: CoordinatorFolder | None) -> Path | None:
    """Return the file of trusted keys, that of the coordinator's folder where none is named."""
    return folder.trust if keys is None and folder is not None and folder.trust.exists() else keys


def _log_key_of(
    log_key: Path | None, database: str, folder: CoordinatorFolder | None, ledger: Ledger
) -> tuple[Path, SigningKey]:
    place = log_key or (None if folder is None else folder.log_key)
    return open_log_key(place, database, head_signer(ledger.engine))


def _announce(server: DeletionServer, ledger: Ledger, place: Path, key: SigningKey, how: str) -> None:
    about = f"ledger {ledger.name}, {len(ledger.site_names())} sites, log key {place} ({key.public.raw.hex()})"
    typer.echo(f"deletion service at {server.address}, {about}{how}")
    sys.stdout.flush()


def _folder_of(coordinator_dir: Path | None) -> CoordinatorFolder | None:
    return None if coordinator_dir is None else CoordinatorFolder(coordinator_dir)


def _identity_of(coordinator_dir: Path | None) -> Identity | None:
    return None if coordinator_dir is None else CoordinatorFolder(coordinator_dir).read_identity()


def _check_exposure(
    address: str, folder: CoordinatorFolder | None, joining_address: str | None, *, insecure: bool
) -> None:
    """Refuse what would be served to other machines without their being known."""
    host, _ = split_address(address)
    if joining_address is not None:
        split_address(joining_address)
        if folder is None:
            raise InvalidSetting(
                "--joining-address needs --coordinator-dir, with the authority that signs certificates"
            )
    if folder is not None:
        if insecure:
            raise InvalidSetting("--insecure and --coordinator-dir contradict each other; leave one of them out")
        return
    if is_loopback(host):
        return
    exposed = f"connections to {address} are neither encrypted nor authenticated"
    if not insecure:
        raise InvalidSetting(
            f"{exposed}; give --coordinator-dir (munkey-server init makes one), listen on 127.0.0.1, "
            "or insist with --insecure"
        )
    sys.stderr.write(f"warning: {exposed}; anyone who reaches this address can ask for deletions\n")


def _allow_many_connections() -> None:
    """Let this process have as many connections as the system allows; a shell's usual limit is about a thousand."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _take_short_turns() -> None:
    """Let threads take turns more often than Python's 5 ms.

    The ledger's thread lets go at each row that it reads or writes, and would wait a whole turn of the event loop for
    the next one.
    """
    sys.setswitchinterval(_TURN_SECONDS)


def main() -> None:
    """Run `munkey-server`."""
    command_line.run(app)
