"""`munkey-client forget`: ask the federation to forget."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import click
import typer
from rich.progress import Progress

from client.commands.display import plain_table, progress_bars
from client.commands.faults import faults_explained
from client.commands.options import (
    DEFAULT_SERVICE,
    IdentityOption,
    JsonOption,
    ServiceOption,
    ValidDaysOption,
    read_ids,
)
from client.commands.requester import DEFAULT_DAYS, Requester
from client.site import SiteFolder
from common import command_line
from common.deletion import (
    DATA_PROTECTION_OFFICER,
    DeletionRequest,
    Records,
    RequestStatus,
    Subject,
    Target,
    WholeSite,
    utc_now,
)
from common.deletion_channel import DeletionChannel, split_address
from common.deletion_service import DeletionService
from common.errors import InvalidDeletion, ServiceUnavailable
from common.identities import Identity
from common.references import FederationSecret
from common.signing.keys import SigningKey
from common.waiting import Wait

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


@faults_explained()
def forget(
    record: Annotated[list[str] | None, typer.Option(help="A record's id. Repeatable.")] = None,
    records_file: Annotated[Path | None, typer.Option(help="A file with record ids, one a line.")] = None,
    subject: Annotated[str | None, typer.Option(help="A patient's id: every record about that patient.")] = None,
    everything: Annotated[bool, typer.Option("--everything", "--all", help="Everything that one site holds.")] = False,
    service: ServiceOption = DEFAULT_SERVICE,
    site_dir: Annotated[
        Path | None, typer.Option(help="Ask as a site, whose folder this is, for what that site holds.")
    ] = None,
    requester: Annotated[
        str | None, typer.Option(help=f"Ask without a site's folder: {DATA_PROTECTION_OFFICER} may.")
    ] = None,
    secret: Annotated[Path | None, typer.Option(help="The federation secret; with --requester.")] = None,
    site: Annotated[
        str | None, typer.Option(help="The only site to ask, with --requester; every site if left out.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="The requester's private key, with --requester; a site signs with the key in its folder."),
    ] = None,
    identity: IdentityOption = None,
    valid_days: ValidDaysOption = DEFAULT_DAYS,
    request_id: Annotated[
        str | None,
        typer.Option(help="The request's id, a random one by default; the same id again is the same request."),
    ] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the sites' answers; 0 does not wait.")] = 60.0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether --everything is meant.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask for records, a patient or a whole site to be forgotten, and show what became of it.

    A site asks for what it holds itself: --site-dir.
    The data-protection officer asks for anything, anywhere: --requester and --secret.
    Ids stay here; the service receives references made with the federation secret.
    Sites that have a file of trusted keys carry out signed requests only.
    A request that not every site has answered in time stays in the ledger until every one has.

    Example: munkey-client forget --subject patient-17 --site-dir hospital-1 --service 127.0.0.1:9440
    """
    split_address(service)
    wanted = read_wanted(record, records_file, subject, everything)
    if site_dir is not None:
        if any(given is not None for given in (requester, secret, site, key, identity)):
            raise InvalidDeletion(
                "--site-dir asks as that site; leave --requester, --secret, --site, --key and --identity out"
            )
        shown = SiteFolder(site_dir).find_identity()
        asker, target = _ask_as_site(SiteFolder(site_dir), wanted)
    else:
        shown = None if identity is None else Identity.read(identity)
        asker, target = _ask_as_officer(requester, secret, site, wanted)
        asker = replace(asker, key=None if key is None else SigningKey.read(key))
    if isinstance(target, WholeSite) and not yes:
        confirm(target.site)
    request = DeletionRequest(str(uuid.uuid4()) if request_id is None else request_id, asker.name, target)
    ask(asker.sign(request, utc_now(), valid_days), service, wait, as_json, shown)


def ask(request: DeletionRequest, service: str, wait: float, as_json: bool, identity: Identity | None = None) -> None:
    """Submit a request, wait for the sites' answers with a progress bar, and show them.

    Parameters
    ----------
    request : DeletionRequest
        Signed, if its requester has a key.
    service : str
        Address of the deletion service.
    wait : float
        Seconds to wait.
    as_json : bool
        Whether to print JSON instead of a table.
    identity : Identity, optional
        What is shown to the service.
    """
    with DeletionChannel(service, identity=identity) as channel:
        status = _submit(channel, request)
        with progress_bars(quiet=as_json) as bars:
            status = await_answers(channel, status, wait, _show_answers(bars, status))
    _show(status, service, as_json, secured=identity is not None)


def await_answers(
    service: DeletionService,
    status: RequestStatus,
    seconds: float,
    on_status: Callable[[RequestStatus], object],
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Wait = time.sleep,
) -> RequestStatus:
    """Return a request's status once every site has answered, or the last that was seen within some seconds.

    A service that cannot be reached meanwhile is asked again: the request is in its ledger.
    """
    end = clock() + seconds
    between = _FIRST_PAUSE
    while not status.state.final and (left := end - clock()) > 0:
        pause(min(between, left))
        between = min(2 * between, _LONGEST_PAUSE)
        try:
            status = service.get(status.request.request_id)
        except ServiceUnavailable:
            continue
        on_status(status)
    return status


@dataclass(frozen=True)
class Wanted:
    """What is to be forgotten, still by its ids; with neither records nor a subject, everything."""

    records: tuple[str, ...] = ()
    subject: str = ""


def read_wanted(record: list[str] | None, records_file: Path | None, subject: str | None, everything: bool) -> Wanted:
    """Return what the options of a command name; raises `InvalidDeletion` unless exactly one of them is given."""
    given = [bool(record), records_file is not None, subject is not None, everything]
    if sum(given) != 1:
        raise InvalidDeletion("say what to forget by one of --record, --records-file, --subject and --everything")
    records = tuple(read_ids(records_file)) if records_file is not None else tuple(record or ())
    if subject == "" or "" in records:
        raise InvalidDeletion("an id is empty; give the id that the record was enrolled with")
    return Wanted(records, subject or "")


def target_of(wanted: Wanted, secret: FederationSecret, site: str) -> Records | Subject:
    """Return records, at one site or (empty) anywhere, or a subject as the service may see them."""
    if wanted.records:
        return Records(frozenset(map(secret.reference, wanted.records)), site)
    return Subject(secret.reference(wanted.subject))


def _ask_as_site(folder: SiteFolder, wanted: Wanted) -> tuple[Requester, Target]:
    key = SigningKey.read(folder.signing_key) if folder.signing_key.exists() else None
    with folder.open() as store:
        site = store.description.site
        if wanted == Wanted():
            return Requester(site, key, folder.read_secret() if key else None), WholeSite(site)
        secret = folder.read_secret()
        references = [secret.reference(record) for record in wanted.records]
        strangers = [
            not (store.records.holds(reference) or store.records.has_deleted(reference)) for reference in references
        ]
    if any(strangers):
        # The place stands for the id, which no error may hold.
        raise InvalidDeletion(
            f"{site} has never held {sum(strangers)} of the {len(strangers)} records, the first of them is number "
            f"{strangers.index(True) + 1}; correct the ids, nothing was asked for"
        )
    return Requester(site, key, secret), target_of(wanted, secret, site)


def _ask_as_officer(
    requester: str | None, secret: Path | None, site: str | None, wanted: Wanted
) -> tuple[Requester, Target]:
    if requester is None:
        raise InvalidDeletion(
            f"say who asks: a site with --site-dir, or --requester {DATA_PROTECTION_OFFICER} with --secret"
        )
    if requester != DATA_PROTECTION_OFFICER:
        raise InvalidDeletion(
            f"--requester {requester!r} may not ask; it is {DATA_PROTECTION_OFFICER}, or a site with --site-dir"
        )
    asker = Requester(requester, secret=None if secret is None else FederationSecret.read(secret))
    if wanted == Wanted():
        if not site:
            raise InvalidDeletion("--everything is about one site; name it with --site")
        return asker, WholeSite(site)
    if wanted.subject and site is not None:
        raise InvalidDeletion("a subject is forgotten at every site; leave --site out, or ask with --site-dir")
    if site == "":
        raise InvalidDeletion("--site is empty; name a site, or leave it out to ask every site")
    if asker.secret is None:
        raise InvalidDeletion("ids become references with the federation secret; name its file with --secret")
    return asker, target_of(wanted, asker.secret, site or "")


def confirm(site: str) -> None:
    """Ask whether everything is meant; raises `InvalidDeletion` if not."""
    try:
        sure = typer.confirm(f"Forget everything that {site} holds? This cannot be undone", err=True)
    except click.Abort:
        sure = False
    if not sure:
        raise InvalidDeletion("not confirmed, so nothing was asked for; --yes leaves the question out")


def _submit(service: DeletionService, request: DeletionRequest) -> RequestStatus:
    try:
        return service.submit(request)
    except ServiceUnavailable as error:
        # The request may have arrived and only the answer been lost; with its id, asking again is asking once.
        raise ServiceUnavailable(f"{error}; then ask again with --request-id {request.request_id}") from None


def _show_answers(bars: Progress, status: RequestStatus) -> Callable[[RequestStatus], None]:
    task = bars.add_task("waiting for the sites", total=len(status.sites))

    def show(status: RequestStatus) -> None:
        bars.update(task, completed=sum(progress.state.final for progress in status.sites))

    show(status)
    return show


def _show(status: RequestStatus, service: str, as_json: bool, *, secured: bool) -> None:
    guarantee = command_line.weakest_guarantee(status)
    if as_json:
        remains = guarantee.remains if guarantee else None
        command_line.print_json({**command_line.status_document(status), "remains": remains})
        return
    name = status.request.request_id
    typer.echo(f"request {name}: {status.state}, {status.erased} records erased")
    table = plain_table(
        "site", "state", "guarantee", "epsilon", "reason", numbers=("order", "records", "entries", "seconds")
    )
    for progress in status.sites:
        answer = progress.acknowledgement
        table.add_row(
            progress.site,
            progress.state.value,
            answer.guarantee.value if answer else "",
            command_line.epsilon_words(answer) if answer else "",
            progress.reason,
            str(progress.number),
            *((str(answer.records), str(answer.entries), f"{answer.seconds:.3f}") if answer else ()),
        )
    command_line.print_table(table)
    if guarantee:
        typer.echo(f"guarantee {guarantee}: {guarantee.remains}")
    if loss := command_line.combined_loss(status):
        typer.echo(f"epsilon {command_line.loss_words(loss)} of one subject, delta {loss.delta:g}")
    if pending := [progress.site for progress in status.sites if not progress.state.final]:
        typer.echo(f"pending at {', '.join(pending)}: the request stays in the ledger until every site has answered")
        if secured:
            typer.echo(f"ask for the same again, with --request-id {name}, to see what has become of it")
        else:
            typer.echo(f"look it up with: munkey-server request {name} --service {service}")
