"""`munkey-client forget`: ask the federation to forget, as a site or as the officer."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import click
import typer
from rich.progress import Progress

from fedmunkey.client.commands.blocked import blocks_shown
from fedmunkey.client.commands.countersign import save_request
from fedmunkey.client.commands.display import progress_bars
from fedmunkey.client.commands.named_ids import (
    RecordOption,
    RecordsFileOption,
    SubjectFileOption,
    SubjectOption,
    read_records,
    read_subject,
)
from fedmunkey.client.commands.options import (
    DEFAULT_SERVICE,
    IdentityOption,
    JsonOption,
    ServiceOption,
    ValidDaysOption,
)
from fedmunkey.client.deletions.asking import (
    Sign,
    Wanted,
    ask_as_site,
    requester_named,
    sign_for,
    submit_parts,
    target_named,
)
from fedmunkey.client.deletions.requester import DEFAULT_DAYS, Requester, together
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions import status_words
from fedmunkey.common.deletions.words import (
    OFFICER,
    DeletionRequest,
    Outcome,
    RequestStatus,
    Target,
    WholeSite,
)
from fedmunkey.common.errors import InvalidDeletion, ServiceUnavailable
from fedmunkey.common.identities import Identity
from fedmunkey.common.programs import command_line
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.service.deletion_service import DeletionService
from fedmunkey.common.service.waiting import Wait
from fedmunkey.common.settings.addresses import split_address

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


@faults_explained()
def forget(
    record: RecordOption = None,
    records_file: RecordsFileOption = None,
    subject: SubjectOption = None,
    subject_file: SubjectFileOption = None,
    everything: Annotated[bool, typer.Option("--everything", "--all", help="Everything that one site holds.")] = False,
    service: ServiceOption = DEFAULT_SERVICE,
    site_dir: Annotated[
        Path | None, typer.Option(help="Ask as a site, whose folder this is, for what that site holds.")
    ] = None,
    asking: Annotated[
        str | None,
        typer.Option("--as", help=f"Ask from any machine: {OFFICER}, or a site's name with its key."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            "--signing-key",
            "--key",
            help="What signs the request, with --as; munkey-client signing-keys new makes one.",
        ),
    ] = None,
    secret: Annotated[
        Path | None, typer.Option(help="The federation secret, which makes references of ids; with --as.")
    ] = None,
    site: Annotated[
        str | None, typer.Option(help="The only site to ask, with --as officer; every site if left out.")
    ] = None,
    identity: IdentityOption = None,
    valid_days: ValidDaysOption = DEFAULT_DAYS,
    request_id: Annotated[
        str | None,
        typer.Option(help="The request's id, a random one by default; the same id again is the same request."),
    ] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the sites' answers; 0 does not wait.")] = 60.0,
    save: Annotated[
        Path | None,
        typer.Option(help="Write the signed request to this file, for another officer to countersign; ask nobody yet."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether --everything is meant.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask for records, a patient or a whole site to be forgotten, and show what became of it.

    Exit code 0: something was erased, none refused or is missing; 3: none holds it; 4: in part; 5: refused; 6: pending;
    8: a legal hold is on it.

    A site asks for what it holds itself: --site-dir, and signs with the key in its folder.
    The data-protection officer asks for anything, anywhere, from any machine: --as officer, --signing-key and --secret.
    Ids stay here; the service receives references made with the federation secret.
    Each site checks the signature by itself; those that trust keys carry out signed requests only.
    A request that not every site has answered in time stays in the ledger until every one has.
    More records than one request may name are asked for in several, which are shown together.

    Example: munkey-client forget --subject - --site-dir hospital-1 --service 127.0.0.1:9440
    """
    split_address(service)
    wanted = _read_wanted(record, records_file, subject, subject_file, everything)
    asker, target, shown = _find_asker(wanted, site_dir, asking, key, secret, site, identity)
    if isinstance(target, WholeSite) and not yes:
        _confirm(target.site)
    request = DeletionRequest(str(uuid.uuid4()) if request_id is None else request_id, asker.name, target)
    if save is not None:
        save_request(save, asker.sign(request, utc_now(), valid_days))
        return
    with blocks_shown(as_json=as_json), DeletionChannel(service, identity=shown) as channel:
        sign = partial(sign_for, channel, asker, days=valid_days, again=request_id is not None)
        statuses = _ask_and_wait(channel, request, sign, wait, quiet=as_json)
    _show(request, statuses, service, as_json, secured=shown is not None)
    raise typer.Exit(together(request, statuses).outcome)


def await_answers(
    service: DeletionService,
    statuses: Sequence[RequestStatus],
    seconds: float,
    on_statuses: Callable[[Sequence[RequestStatus]], object],
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Wait = time.sleep,
) -> list[RequestStatus]:
    """Return requests' statuses once every site has answered all, or the last that were seen within some seconds.

    A service that cannot be reached meanwhile is asked again: the requests are in its ledger.
    """
    seen = list(statuses)
    end = clock() + seconds
    between = _FIRST_PAUSE
    on_statuses(seen)
    while any(status.outcome is Outcome.PENDING for status in seen) and (left := end - clock()) > 0:
        pause(min(between, left))
        between = min(2 * between, _LONGEST_PAUSE)
        try:
            for place, status in enumerate(seen):
                if status.outcome is Outcome.PENDING:
                    seen[place] = service.get(status.request.request_id)
        except ServiceUnavailable:
            continue
        on_statuses(seen)
    return seen


def _read_wanted(
    record: list[str] | None,
    records_file: Path | None,
    subject: str | None,
    subject_file: Path | None,
    everything: bool,
) -> Wanted:
    """Return what the options of a command name; raises `InvalidDeletion` unless exactly one of them is given."""
    given = [bool(record), records_file is not None, subject is not None, subject_file is not None, everything]
    if sum(given) != 1:
        raise InvalidDeletion(
            "say what to forget by one of --record, --records-file, --subject, --subject-file and --everything"
        )
    records = read_records(record, records_file) or []
    named = read_subject(subject, subject_file)
    if named == "" or "" in records:
        raise InvalidDeletion("an id is empty; give the id that the record was enrolled with")
    return Wanted(tuple(records), named or "")


def _find_asker(
    wanted: Wanted,
    site_dir: Path | None,
    asking: str | None,
    key: Path | None,
    secret: Path | None,
    site: str | None,
    identity: Path | None,
) -> tuple[Requester, Target, Identity | None]:
    """Return who asks, for what, and the identity that is shown to the service."""
    if site_dir is None:
        shown = None if identity is None else Identity.read(identity)
        return *_ask_from_anywhere(asking, key, secret, site, wanted), shown
    if any(given is not None for given in (asking, key, secret, site, identity)):
        raise InvalidDeletion(
            "--site-dir asks as that site; leave --as, --signing-key, --secret, --site and --identity out"
        )
    shown = SiteFolder(site_dir).find_identity()
    return *ask_as_site(SiteFolder(site_dir), wanted), shown


def _ask_from_anywhere(
    asking: str | None, key: Path | None, secret: Path | None, site: str | None, wanted: Wanted
) -> tuple[Requester, Target]:
    if asking is None:
        raise InvalidDeletion(
            f"say who asks: a site with --site-dir, or --as {OFFICER} with --signing-key and --secret"
        )
    asker = requester_named(asking, key, secret)
    return asker, target_named(asker, wanted, site)


def _confirm(site: str) -> None:
    """Ask whether everything is meant; raises `InvalidDeletion` if not."""
    try:
        sure = typer.confirm(f"Forget everything that {site} holds? This cannot be undone", err=True)
    except click.Abort:
        sure = False
    if not sure:
        raise InvalidDeletion("not confirmed, so nothing was asked for; --yes leaves the question out")


def _ask_and_wait(
    service: DeletionService, request: DeletionRequest, sign: Sign, wait: float, *, quiet: bool
) -> list[RequestStatus]:
    """Submit a request and wait for answers; its id is said first, for whoever does not wait until the end."""
    statuses = list[RequestStatus]()
    try:
        for status in submit_parts(service, request, sign):
            statuses.append(status)
        with progress_bars(quiet=quiet) as bars:
            said = f"request {request.request_id} stands in the ledger"
            waiting = "; waiting for the sites, Ctrl-C ends the waiting and not the request"
            typer.echo(f"{said}{waiting * bool(wait)}", err=True)
            return await_answers(service, statuses, wait, show_answers(bars))
    except KeyboardInterrupt:
        stands = "stands, and is carried out" if statuses else "may have been sent"
        typer.echo(
            f"interrupted; the request {stands}: to see what becomes of it, ask again with "
            f"--request-id {request.request_id}",
            err=True,
        )
        raise


def show_answers(bars: Progress) -> Callable[[Sequence[RequestStatus]], None]:
    """Return what shows each site's answer once, and how many are to come."""
    task = bars.add_task("waiting for the sites", total=None)
    known: dict[str, bool] = {}

    def show(statuses: Sequence[RequestStatus]) -> None:
        sites = [progress for status in statuses for progress in status.sites]
        bars.update(task, total=len(sites), completed=sum(progress.state.final for progress in sites))
        waited_for = {progress.site for progress in sites if not progress.state.final}
        for site in dict.fromkeys(progress.site for progress in sites):
            known.setdefault(site, site not in waited_for)
        for site in [each for each, answered in known.items() if not answered and each not in waited_for]:
            known[site] = True
            typer.echo(f"{site} has answered, {list(known.values()).count(False)} to come", err=True)

    return show


def _show(
    request: DeletionRequest, statuses: list[RequestStatus], service: str, as_json: bool, *, secured: bool
) -> None:
    status = together(request, statuses)
    names = [part.request.request_id for part in statuses]
    guarantee = status_words.weakest_guarantee(status)
    if as_json:
        remains = (status_words.renewal_words(status) or guarantee.remains) if guarantee else None
        parts = {"parts": names} if len(names) > 1 else {}
        command_line.print_json({**status_words.status_document(status), "remains": remains, **parts})
        return
    pending = status.outcome is Outcome.PENDING
    erased = "nothing erased yet" if pending and not status.erased else status_words.erased_words(status.erased)
    typer.echo(f"request {request.request_id}: {status.state}, {erased}")
    if len(names) > 1:
        typer.echo(f"asked for in {len(names)} requests, {names[0]} to {names[-1]}")
    command_line.print_table(command_line.filled_table(*status_words.progress_rows(status)))
    if guarantee:
        typer.echo(f"guarantee {guarantee}: {status_words.renewal_words(status) or guarantee.remains}")
    if loss := status_words.combined_loss(status):
        typer.echo(f"epsilon {status_words.loss_words(loss)} of one subject, delta {loss.delta:g}")
    if words := status_words.outcome_words(status):
        typer.echo(words)
    if pending:
        if secured:
            typer.echo(f"ask for the same again, with --request-id {request.request_id}, to see what has become of it")
        else:
            waiting = next(part.request.request_id for part in statuses if part.outcome is Outcome.PENDING)
            typer.echo(f"look it up with: munkey-server request {waiting} --service {service}")
