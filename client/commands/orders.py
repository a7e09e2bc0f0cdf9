"""`munkey-client agent` and `munkey-client catch-up`: a site carries out deletion orders."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import Annotated

import typer

from fedmunkey.client.commands.display import order_document, orders_table
from fedmunkey.client.commands.options import (
    DEFAULT_PATIENCE,
    DEFAULT_SERVICE,
    JsonOption,
    MetricsOption,
    ServiceOption,
    SiteDirOption,
)
from fedmunkey.client.deletions.agent import DeletionAgent, catch_up_patiently
from fedmunkey.client.deletions.lineage.exported_models import holding
from fedmunkey.client.deletions.site_metrics import site_registry
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions import status_words
from fedmunkey.common.deletions.words import Acknowledgement
from fedmunkey.common.errors import KeyStoreError, count_of
from fedmunkey.common.identities import Identity
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.log_format import LogFormat, log_lines
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.service.metrics_service import served_registry
from fedmunkey.common.stop_signals import stop_event

logger = logging.getLogger(__name__)

_InsecureOption = Annotated[
    bool,
    typer.Option(
        "--insecure-orders", help="Carry out anybody's orders, at a site that has not joined: for development only."
    ),
]
_EXPIRES_SOON = timedelta(days=30)


@faults_explained()
def agent(
    site_dir: SiteDirOption,
    service: ServiceOption = DEFAULT_SERVICE,
    insecure_orders: _InsecureOption = False,
    metrics: MetricsOption = None,
    log_format: Annotated[LogFormat, typer.Option(help="How log lines on stderr are written.")] = LogFormat.TEXT,
) -> None:
    """Carry out deletion orders as they come, until SIGINT or SIGTERM.

    It begins with the orders that came while it was off, and waits for a service that cannot be reached.
    The site may train meanwhile. Only what officers or the site have signed is carried out: it needs trusted keys.

    Example: munkey-client agent --site-dir hospital-1 --service 127.0.0.1:9440
    """
    folder = SiteFolder(site_dir)
    with (
        log_lines(logging.StreamHandler(), log_format, logger),
        folder.open_to_hear(insecure=insecure_orders) as store,
        DeletionChannel(service, identity=_identity_of(folder)) as channel,
        stop_event(channel.close) as stop,
        ExitStack() as stack,
    ):
        measured = ""
        if metrics is not None:
            measured = f", metrics at {stack.enter_context(served_registry(site_registry(folder), metrics))}"
        site, last = store.description.site, store.orders.last
        typer.echo(f"deletion agent of {site}: orders after {last} from {service}{measured}")

        def show(answer: Acknowledgement) -> None:
            _show_order(answer)
            _show_exported(folder, store, [answer])

        DeletionAgent(store, channel, on_order=show).run(stop)


@faults_explained()
def catch_up(
    site_dir: SiteDirOption,
    service: ServiceOption = DEFAULT_SERVICE,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a service that cannot be reached.")
    ] = DEFAULT_PATIENCE,
    accept_log: Annotated[
        bool,
        typer.Option(
            "--accept-log", help="Take the coordinator's log as it is, where what the site had seen of it is lost."
        ),
    ] = False,
    insecure_orders: _InsecureOption = False,
    as_json: JsonOption = False,
) -> None:
    """Carry out the orders that are outstanding, once.

    Example: munkey-client catch-up --site-dir hospital-1 --service 127.0.0.1:9440
    """
    _log_to_stderr()
    folder = SiteFolder(site_dir)
    identity = _identity_of(folder)
    with (
        folder.open_to_hear(insecure=insecure_orders, accept_log=accept_log) as store,
        DeletionChannel(service, identity=identity) as channel,
    ):
        applied = catch_up_patiently(store, channel, patience=patience)
        site, last = store.description.site, store.orders.last
        if not as_json:
            _show_exported(folder, store, applied)
    if as_json:
        command_line.print_json([order_document(answer) for answer in applied])
    elif applied:
        command_line.print_table(orders_table(applied))
    else:
        typer.echo(f"nothing was outstanding; the last order that {site} has applied is number {last}")


def _identity_of(folder: SiteFolder) -> Identity | None:
    """Return the identity that a site shows, after a warning if its certificate expires soon."""
    identity = folder.find_identity()
    if identity is not None and (left := identity.not_after - utc_now()) < _EXPIRES_SOON:
        logger.warning(
            "the site's certificate expires in %s: munkey-client rotate --site-dir %s",
            count_of(left.days, "day"),
            folder.path,
        )
    return identity


def _show_order(answer: Acknowledgement) -> None:
    epsilon = status_words.epsilon_words(answer)
    typer.echo(
        f"order {answer.number}: {answer.state}, {count_of(answer.records, 'record')}, "
        f"{count_of(answer.entries, 'entry', 'entries')}, "
        f"{answer.seconds:.3f} s ({answer.guarantee}{', epsilon ' * bool(epsilon)}{epsilon})"
    )


def _show_exported(folder: SiteFolder, store: KeyStore, answers: Sequence[Acknowledgement]) -> None:
    """Say how many models that were given away hold what orders have erased."""
    erased = [answer.number for answer in answers if answer.entries]
    try:
        count = len(holding(store, max(erased))) if erased else 0
    except KeyStoreError as error:
        logger.error("%s", error)
        return
    if count:
        what = "model that was given away" if count == 1 else "models that were given away"
        typer.echo(f"{count} {what} must be replaced: munkey-client recall --site-dir {folder.path}")


def _log_to_stderr() -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
