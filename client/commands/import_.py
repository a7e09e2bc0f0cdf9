"""`munkey-client import`: a hospital's own picture files into its key store, as a CSV manifest describes them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from client.commands.display import progress_bars, shown_in
from client.commands.faults import faults_explained
from client.commands.import_result import Result, show
from client.commands.options import (
    DeltaOption,
    EncoderOption,
    EpsilonOption,
    FirstSecretOption,
    GuaranteeOption,
    JsonOption,
    NewConsentOption,
    SettingOption,
    SiteDirOption,
    SiteNameOption,
    WeightsOption,
    given_settings,
    read_ids,
)
from client.dataset import Consent, Split
from client.importing.conventions import read_conventions
from client.importing.importer import Enroller, import_candidates, only_look
from client.importing.manifest import Manifest, parse_columns, read_manifest
from client.importing.planning import Plan, Planner
from client.importing.refusals import Reason, check_report, write_report
from client.importing.settling import Asked, settle
from client.site import SiteFolder
from client.site_enrolment import SiteEnrolment, check_site_name, complete_arrivals, read_site_secret
from common.errors import InvalidDataset
from common.model_choice import choose_encoder, choose_shape

_SOME_REFUSED = 1
"""Exit code where rows were refused for another reason than a deletion."""


@faults_explained()
def import_(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="CSV file, a row for each image.")],
    site_dir: SiteDirOption,
    site: SiteNameOption,
    secret: FirstSecretOption = None,
    image_shape: Annotated[
        str | None, typer.Option(help="Channels x height x width of the federation's images; needed the first time.")
    ] = None,
    class_name: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            help="A class's name, in the order that every site gives; from the labels if left out. Repeatable.",
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="A header of the manifest as COLUMN=HEADER, such as label=finding. Repeatable."),
    ] = None,
    consent: Annotated[
        Consent, typer.Option(help="Consent of the rows that do not say it themselves.")
    ] = Consent.REVOCABLE,
    new_consent: NewConsentOption = None,
    volume_slice: Annotated[
        str | None,
        typer.Option("--slice", help="Which axial slice of a NIfTI volume: middle, or a number from 0 at the feet."),
    ] = None,
    split_seed: Annotated[
        int | None, typer.Option(help="Seed of the split by subject, where there is no column split; 0 by default.")
    ] = None,
    val_share: Annotated[
        float | None, typer.Option(help="Share of the subjects held out for validation; 0.1 by default.")
    ] = None,
    test_share: Annotated[
        float | None, typer.Option(help="Share of the subjects held out for tests; 0.2 by default.")
    ] = None,
    setting: SettingOption = None,
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    guarantee: GuaranteeOption = None,
    epsilon: EpsilonOption = None,
    delta: DeltaOption = None,
    report: Annotated[
        Path | None, typer.Option(help="CSV file for the refused rows; only its owner can read it.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and check everything, and write nothing but the report.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Add records from PNG, JPEG, DICOM and NIfTI files to a site's key store, and make its folder the first time.

    The manifest has a header and the columns path (relative to the manifest), label (a class or its number), record_id,
    subject_id and, if wanted, consent (revocable or permanent) and split (train, val or test). Without a split,
    subjects are divided by the seed. A file that cannot be used costs its own row only. Rows are named by their number
    in the file, the header's being 1, and never by an id.

    What the first import chooses is kept in the site's folder and need not be given again. If an import is interrupted,
    run it again: it goes on where it was. Exit code 1 means that rows were refused for other reasons than a deletion.

    Example: munkey-client import scans.csv --site-dir hospital-1 --site hospital-1 --secret federation.secret
    --image-shape 1x28x28 --class benign --class malignant
    """
    check_site_name(site)
    rows = read_manifest(manifest, parse_columns(column or []))
    if report is not None:
        check_report(report, manifest)
    consents = _read_new_consents(new_consent, rows)
    given = given_settings(
        setting,
        {
            "image-shape": image_shape,
            "encoder": encoder,
            "encoder-weights": weights,
            "guarantee": guarantee,
            "epsilon": epsilon,
            "delta": delta,
        },
    )
    folder = SiteFolder(site_dir)
    asked = Asked(tuple(class_name or ()), volume_slice, split_seed, val_share, test_share, given)
    conventions, settings = settle(folder, rows, read_conventions(folder), asked)
    shared = read_site_secret(folder, secret)
    shape = choose_shape(settings)
    enrolment = SiteEnrolment(folder, site, settings, choose_encoder(settings), shape, shared, frozenset(given))
    enrolment.check()
    with progress_bars(quiet=as_json) as bars:
        plan = _plan(folder, Planner(rows, conventions, shared, consent=consent, new_consent=consents))
        task = bars.add_task("reading images", total=len(rows), completed=len(rows) - len(plan.candidates))
        with Enroller(enrolment, conventions, consents) as enroller:
            imported = import_candidates(
                plan.candidates,
                conventions,
                only_look if dry_run else enroller,
                lambda more: bars.update(task, advance=more),
            )
        totals = _complete(folder, bars, dry_run=dry_run)
    result = Result(site, dry_run, len(rows), plan, imported, conventions, totals)
    if report is not None:
        write_report(report, result.refusals)
    show(result, as_json=as_json)
    if any(refusal.reason is not Reason.DELETED for refusal in result.refusals):
        raise typer.Exit(_SOME_REFUSED)


def _read_new_consents(path: Path | None, manifest: Manifest) -> frozenset[str]:
    if path is None:
        return frozenset()
    ids = frozenset(read_ids(path))
    unknown = len(ids.difference(row.record_id for row in manifest.rows))
    if unknown:
        raise InvalidDataset(
            f"{unknown} of the {len(ids)} record ids in {path} are not in {manifest.path}; correct them"
        )
    return ids


def _plan(folder: SiteFolder, planner: Planner) -> Plan:
    if not folder.key_store.exists():
        return planner.plan(None)
    with folder.open() as store:
        return planner.plan(store)


def _complete(folder: SiteFolder, bars: Progress, *, dry_run: bool) -> dict[str, int]:
    """Finish what follows from records, also those of an import that was interrupted; return records by split."""
    if not folder.key_store.exists():
        return {split.value: 0 for split in Split}
    with folder.open() as store:
        if not dry_run:
            complete_arrivals(folder, store, shown_in(bars))
        return {split.value: store.records.count(split) for split in Split}
