"""`munkey-client rectify`: erase records and enrol them anew, corrected, as one request with one receipt."""

from __future__ import annotations

import uuid
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.client.commands.blocked import blocks_shown
from fedmunkey.client.commands.display import progress_bars
from fedmunkey.client.commands.enrolment_options import EnrolmentOptions
from fedmunkey.client.commands.options import DEFAULT_SERVICE, ServiceOption
from fedmunkey.client.deletions.agent import catch_up
from fedmunkey.client.deletions.asking import sign_for
from fedmunkey.client.deletions.requester import DEFAULT_DAYS, Requester
from fedmunkey.client.importing.manifest import Column, parse_columns
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.key_store.enrolment import Arrivals
from fedmunkey.common.deletions import status_words
from fedmunkey.common.deletions.outcomes import Outcome
from fedmunkey.common.deletions.words import DeletionRequest, Records, RequestStatus
from fedmunkey.common.errors import InvalidDeletion, ServiceUnavailable, count_of
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.options import takes_options
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.service.channel import DeletionChannel


@faults_explained()
@takes_options(EnrolmentOptions)
def rectify(
    manifest: Annotated[Path, typer.Argument(help="CSV file with the corrected records, as for import.")],
    options: EnrolmentOptions,
    service: ServiceOption = DEFAULT_SERVICE,
    column: Annotated[
        list[str] | None, typer.Option(help="A column under another header, NAME=HEADER, as for import. Repeatable.")
    ] = None,
    request_id: Annotated[
        str | None, typer.Option(help="The request's id, a random one by default; the same id again goes on.")
    ] = None,
    insecure_orders: Annotated[
        bool, typer.Option("--insecure-orders", help="For development: carry out orders that nobody has signed.")
    ] = False,
) -> None:
    """Erase records that the site holds and enrol them anew, corrected, under the same ids: one request, one receipt.

    The corrected pictures, labels and consents are read and encoded first, and wait sealed in the site's folder. The
    site then asks for the present ones to be erased, and carries the order out in one transaction with the enrolment,
    or has its agent do so; its receipt says how many took their place. Weights are renewed as after any deletion.

    Exit codes are those of munkey-client forget; 4 also says that some were erased and not enrolled anew.

    Example: munkey-client rectify corrected.csv --site-dir hospital-1 --site hospital-1
    --service coordinator.example.org:9440
    """
    folder = options.folder
    name = str(uuid.uuid4()) if request_id is None else request_id
    key = SigningKey.read(folder.signing_key) if folder.signing_key.exists() else None
    with closing(folder.open_to_hear(insecure=insecure_orders)) as store, blocks_shown(as_json=options.as_json):
        if store.staging.find(name) is None:
            store.staging.stage(name, _read(options, manifest, parse_columns(column or []), store))
        waiting = store.staging.find(name)
        site = store.description.site
        target = Records(frozenset(waiting.references if waiting else ()), site)
        with DeletionChannel(service, identity=folder.find_identity()) as channel:
            asker = Requester(site, key, folder.read_secret())
            request = DeletionRequest(name, site, target)
            try:
                channel.submit(sign_for(channel, asker, request, DEFAULT_DAYS, again=request_id is not None))
            except InvalidDeletion:
                store.staging.discard(name)
                raise
            except ServiceUnavailable as error:
                raise ServiceUnavailable(f"{error}; then go on with --request-id {name}") from None
            catch_up(store, channel)
            status = channel.get(name)
        if status.outcome is not Outcome.PENDING:
            store.staging.discard(name)
        _show(status, store, as_json=options.as_json)


def _read(options: EnrolmentOptions, path: Path, columns: dict[Column, str], store: KeyStore) -> Arrivals:
    """Read and encode what is corrected, as the site's imports do."""
    # They bring the encoder, whose import would slow down every other command.
    from fedmunkey.client.importing.conventions import read_conventions
    from fedmunkey.client.importing.manifest import read_manifest
    from fedmunkey.client.importing.rectifying import read_corrected
    from fedmunkey.client.importing.settling import Asked, settle

    manifest, given = read_manifest(path, columns), options.settings()
    _, settings = settle(
        options.folder, manifest, read_conventions(options.folder), Asked(settings=given), options.card
    )
    enrolment = options.enrolment(settings, given, frozenset())
    with progress_bars(quiet=options.as_json) as bars:
        task = bars.add_task("reading images", total=len(manifest))
        return read_corrected(manifest, enrolment, store, options.consent, lambda more: bars.update(task, advance=more))


def _show(status: RequestStatus, store: KeyStore, *, as_json: bool) -> None:
    (part,) = status.sites
    placed = store.orders.rectified(part.number)
    lacking = status.outcome is Outcome.ERASED and placed < status.erased
    command_line.show(
        {**status_words.status_document(status), "rectified": placed},
        as_json,
        f"request {status.request.request_id}: {status.state}, {status_words.erased_words(status.erased)}, "
        f"{count_of(placed, 'record')} enrolled anew, corrected",
        *([status_words.outcome_words(status)] if status_words.outcome_words(status) else []),
        *(["NOT ALL were enrolled anew: import what is missing with --new-consent"] if lacking else []),
    )
    raise typer.Exit(Outcome.PARTIAL if lacking else status.outcome)
