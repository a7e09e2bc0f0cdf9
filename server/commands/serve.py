"""`munkey-server serve`: the deletion service."""

from __future__ import annotations

import gc
import resource
import sys
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.common.errors import InvalidSetting, count_of
from fedmunkey.common.identities.signed_card import CardChain
from fedmunkey.common.programs.log_format import LogFormat
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.trusted_keys import TrustedKeys
from fedmunkey.common.settings.addresses import is_loopback, split_address
from fedmunkey.common.settings.settings import RENEW_DAYS
from fedmunkey.common.stop_signals import StopAsked, stopped_by_signals
from fedmunkey.server.commands.options import (
    DEFAULT_ADDRESS,
    DatabaseOption,
    FolderOption,
    KeysOption,
    LogKeyOption,
    folder_of,
    log_key_of,
    trust_of,
)
from fedmunkey.server.deletions.coordinator_proofs import CoordinatorProofs
from fedmunkey.server.deletions.federation_metrics import FederationCollector
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.deletions.metrics import served_metrics
from fedmunkey.server.deletions.move_log import logging_to
from fedmunkey.server.ledger.due import DUE_DAYS
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder, ledger_of
from fedmunkey.server.members.joining import Joining, JoiningServer
from fedmunkey.server.members.recovery import serving_register
from fedmunkey.server.transparency_log.log import TransparencyLog

_TURN_SECONDS = 0.0005
_NEW_OBJECTS = 20_000


def serve(
    database: DatabaseOption = None,
    address: Annotated[str, typer.Option(help="Where to listen, host:port; port 0 takes one that is free.")] = (
        DEFAULT_ADDRESS
    ),
    coordinator_dir: FolderOption = None,
    joining_address: Annotated[
        str | None, typer.Option(help="Where to let invited members join, host:port; nobody can join if left out.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen in plain text where other machines reach it.")
    ] = False,
    site: Annotated[list[str] | None, typer.Option(help="Site to register first; may be repeated.")] = None,
    keys: KeysOption = None,
    log_key: LogKeyOption = None,
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
    folder = folder_of(coordinator_dir)
    _check_exposure(address, folder, joining_address, insecure=insecure)
    identity = None if folder is None else folder.read_identity()
    authority = None if folder is None else folder.read_authority()
    if database is not None and folder is not None and (before := folder.note_ledger(database)) != folder.ledger:
        sys.stderr.write(f"warning: the ledger is {folder.ledger} from now on; it was {before}\n")
    database = ledger_of(database, folder)
    keys = trust_of(keys, folder)
    _allow_many_connections()
    _take_short_turns()
    _look_for_rubbish_seldom()
    stop = StopAsked()
    with stopped_by_signals(stop.ask), ExitStack() as stack:
        kept = None if folder is None else folder.instructions
        due, renew = timedelta(days=due_days), timedelta(days=renew_days)
        opened = stack.enter_context(Ledger(database, due=due, renew=renew, instructions=kept))
        stack.enter_context(logging_to(sys.stderr, log_format, opened))
        for name in site or []:
            opened.register(name)
        place, signing = log_key_of(log_key, database, folder, opened)
        if keys is not None:
            # A file that cannot be used is found before anything is served.
            TrustedKeys.read(keys)
        register = None if folder is None else serving_register(folder, opened)
        service = LedgerService(opened, proofs=CoordinatorProofs(TransparencyLog(opened.engine, signing), keys))
        cards = CardChain if folder is None else folder.read_cards
        with DeletionServer(
            service, address, identity=identity, register=register, authority=authority, cards=cards
        ) as server:
            measured = ""
            if joining_address is not None and folder and identity and authority and register:
                joining = Joining(register, opened, authority, signing.public, keys or folder.trust, cards)
                joined = stack.enter_context(JoiningServer(joining, joining_address, identity))
                measured = f", joining at {joined.address}"
            if metrics is not None:
                known = [] if folder is None or register is None else [FederationCollector(register, folder.runs)]
                address_of = stack.enter_context(served_metrics(opened, metrics, server.refusals, *known))
                measured += f", metrics at {address_of}"
            secured = "" if identity is None else ", mutual TLS"
            _announce(server, opened, place, signing, f"{secured}{measured}")
            stop.wait()
        service.close()


def _announce(server: DeletionServer, ledger: Ledger, place: Path, key: SigningKey, how: str) -> None:
    about = (
        f"ledger {ledger.name}, {count_of(len(ledger.site_names()), 'site')}, log key {place} ({key.public.raw.hex()})"
    )
    typer.echo(f"deletion service at {server.address}, {about}{how}")
    sys.stdout.flush()


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


def _look_for_rubbish_seldom() -> None:
    """Have Python look for unreachable cycles after more than its 700 new objects.

    A message of a thousand sites makes more than that, and each look goes through what their connections hold: it took
    a third of the event loop's time.
    """
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])


def _take_short_turns() -> None:
    """Let threads take turns more often than Python's 5 ms.

    The ledger's thread lets go at each row that it reads or writes, and would wait a whole turn of the event loop for
    the next one.
    """
    sys.setswitchinterval(_TURN_SECONDS)
