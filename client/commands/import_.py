"""`munkey-client import`: a hospital's own picture files into its key store, as a CSV manifest describes them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.client.commands.display import progress_bars, shown_in
from fedmunkey.client.commands.enrolment_options import EnrolmentOptions
from fedmunkey.client.commands.import_result import Result, show
from fedmunkey.client.importing.contact_sheet import ContactSheet
from fedmunkey.client.importing.conventions import read_conventions, write_conventions
from fedmunkey.client.importing.held_records import HeldPictures
from fedmunkey.client.importing.identifiers import plain_id
from fedmunkey.client.importing.importer import Importer, looking
from fedmunkey.client.importing.manifest import parse_columns, read_manifest
from fedmunkey.client.importing.planning import Planner
from fedmunkey.client.importing.refusals import Reason, check_report, write_report
from fedmunkey.client.importing.settling import Asked, settle
from fedmunkey.client.importing.site_enrolment import OpenEnrolment
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.common.errors import InvalidInput
from fedmunkey.common.programs.options import takes_options

_SOME_REFUSED = 1
"""Exit code where rows were refused for another reason than a deletion."""


@faults_explained()
@takes_options(EnrolmentOptions)
def import_(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="CSV file, a row for each image.")],
    options: EnrolmentOptions,
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
    volume_slice: Annotated[
        str | None,
        typer.Option("--slice", help="Which axial slice of a NIfTI volume: middle, or a number from 0 at the feet."),
    ] = None,
    frame: Annotated[
        str | None, typer.Option(help="Which frame of a DICOM file with several: middle, or a number from 1.")
    ] = None,
    bits: Annotated[
        int | None,
        typer.Option(help="How many of the 16 bits of a PNG hold grey values, such as 12; by default all, if used."),
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
    report: Annotated[
        Path | None, typer.Option(help="CSV file for the refused rows; only its owner can read it.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and check everything, and write nothing but the report.")
    ] = False,
    contact_sheet: Annotated[
        bool,
        typer.Option(
            "--contact-sheet",
            help="With --dry-run, leave contact-sheet.html in the site's folder: some pictures of each class as the "
            "model will see them, and histograms. The next import and every deletion remove it.",
        ),
    ] = False,
) -> None:
    """Add records from PNG, JPEG, DICOM and NIfTI files to a site's key store, and make its folder the first time.

    The manifest has a header and the columns path (relative to the manifest), label (a class or its number), record_id,
    subject_id and, if wanted, consent (revocable or permanent) and split (train, val or test). Without a split,
    subjects are divided by the seed. A file that cannot be used costs its own row only. Rows are named by their number
    in the file, the header's being 1, and never by an id. Where a file holds several pictures, a row of its own for
    each names one with --column frame=HEADER (DICOM) or --column slice=HEADER (NIfTI).

    What the federation card says (munkey-client card show) need not be given, and nothing else can be; what the first
    import chooses is kept in the site's folder and need not be given again. If an import is interrupted,
    run it again: it goes on where it was. Exit code 1 means that rows were refused for other reasons than a deletion.

    Example: munkey-client import scans.csv --site-dir hospital-1 --site hospital-1 --secret federation.secret
    --image-shape 1x28x28 --class benign --class malignant
    """
    if contact_sheet and not dry_run:
        raise InvalidInput("--contact-sheet shows what an import would do; add --dry-run, or leave it out")
    rows = read_manifest(manifest, parse_columns(column or []))
    if report is not None:
        check_report(report, manifest)
    new_consent = options.read_new_consent((plain_id(row.record_id) for row in rows.rows), manifest)
    given = options.settings(image_shape=image_shape)
    asked = Asked(tuple(class_name or ()), volume_slice, split_seed, val_share, test_share, given, frame, bits)
    conventions, settings = settle(options.folder, rows, read_conventions(options.folder), asked, options.card)
    enrolment = options.enrolment(settings, given, new_consent)
    planner = Planner(rows, conventions, enrolment.secret, consent=options.consent, new_consent=new_consent)
    sheet = ContactSheet(options.site, conventions.classes) if contact_sheet else None
    # Conventions are kept as soon as there is a record that was treated so.
    site = OpenEnrolment(enrolment, on_made=lambda: write_conventions(options.folder, conventions))
    if not dry_run:
        options.folder.remove_contact_sheet()
    with closing(site), progress_bars(quiet=options.as_json) as bars:
        plan = planner.plan(site.store)
        task = bars.add_task("reading images", total=len(rows), completed=len(rows) - plan.candidates)
        importer = Importer(
            conventions,
            looking(site.store, new_consent) if dry_run else site.take,
            lambda more: bars.update(task, advance=more),
            None if site.store is None else HeldPictures(site.store, enrolment.secret),
            None if sheet is None else lambda candidate, image: sheet.add(candidate.row, candidate.label, image),
        )
        imported = importer.run(planner.candidates())
        written = None if sheet is None else sheet.write(options.folder)
        totals = site.count() if dry_run else site.complete(shown_in(bars))
    result = Result(options.site, dry_run, len(rows), plan, imported, conventions, totals, written)
    if report is not None:
        write_report(report, result.refusals)
    show(result, as_json=options.as_json)
    if any(refusal.reason not in (Reason.DELETED, Reason.OPTED_OUT) for refusal in result.refusals):
        raise typer.Exit(_SOME_REFUSED)
