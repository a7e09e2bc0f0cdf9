"""`munkey-client enrol`: records from a file into a site's key store, which is made if there is none."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.client.commands.display import counts_table, progress_bars, shown_in
from fedmunkey.client.commands.enrolment_options import EnrolmentOptions
from fedmunkey.client.importing.agreement import classes_shown
from fedmunkey.client.importing.array_records import ArrayRecords
from fedmunkey.client.importing.conventions import Conventions, read_conventions, write_conventions
from fedmunkey.client.importing.notices import WORDS, rows_of_notices
from fedmunkey.client.importing.settling import settle_array_file
from fedmunkey.client.importing.site_enrolment import OpenEnrolment, fit_classes
from fedmunkey.client.key_store import Enrolled
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.records.dataset import Dataset
from fedmunkey.client.records.medmnist_files import read_array_file
from fedmunkey.common.errors import InvalidSetting, count_of
from fedmunkey.common.model.federation_card import FederationCard
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.options import takes_options
from fedmunkey.common.settings.settings import Settings
from fedmunkey.common.settings.settings_text import ConfigValue


@faults_explained()
@takes_options(EnrolmentOptions)
def enrol(
    data: Annotated[Path, typer.Option(help="Records in the MedMNIST layout (.npz).")],
    options: EnrolmentOptions,
    master_key: Annotated[
        Path | None,
        typer.Option(help="Where the master key of a site that is made is kept; beside the key store by default."),
    ] = None,
) -> None:
    """Add records to a site's key store, and make the site's folder the first time.

    Settings are those of the federation card (munkey-client card show), and nothing else can be given; without a card,
    give those that the federation trains with. Image shape and number of classes come from the data.
    Guarantee, epsilon and delta are promised to the patients the first time, and cannot be changed later.
    A record without an id is named by its picture, a subject with a number by site and number: munkey-client ids shows
    the names. If it is interrupted, run it again: it goes on where it was.

    Example: munkey-client enrol --site-dir hospital-1 --site hospital-1 --data scans.npz --secret federation.secret
    """
    found = read_array_file(data, consent=options.consent)
    given = options.settings()
    before = read_conventions(options.folder)
    conventions = settle_array_file(data, found, before, given, options.card)
    enrolment = options.enrolment(
        _fit_to_data(given, found.dataset, conventions, options.card), given, frozenset(), master_key
    )
    keep = (lambda: write_conventions(options.folder, conventions)) if conventions and conventions != before else None
    with closing(OpenEnrolment(enrolment, keep or (lambda: None))) as site:
        records = ArrayRecords.of(data, found, site.store, enrolment.secret)
        dataset = records.named(options.site)
        held = records.check(dataset)
        new_consent = options.read_new_consent(dataset.record_ids.tolist(), data)
    enrolment = replace(enrolment, new_consent=new_consent)
    with (
        closing(OpenEnrolment(enrolment, keep or (lambda: None))) as site,
        progress_bars(quiet=options.as_json) as bars,
    ):
        site.make()
        enrolled = Enrolled(known=int(held.sum()))
        task = bars.add_task("encoding images", total=len(dataset), completed=enrolled.known)
        for batch in dataset.select(~held).batches():
            enrolled += site.take(batch)[0]
            bars.update(task, advance=len(batch))
        totals = site.complete(shown_in(bars))
    counts = asdict(enrolled)
    notices = rows_of_notices(records.repeated(dataset))
    if options.as_json:
        noted = [{"notice": notice.value, "rows": found.rows[rows].tolist()} for notice, rows in notices.items()]
        command_line.print_json({"site": options.site, **counts, "records": totals, "notices": noted})
        return
    command_line.print_table(counts_table(options.site, {**counts, **totals}))
    if options.card is not None and found.class_names is None:
        typer.echo(f"the file names no classes; its numbers are those of the card: {classes_shown(options.card)}")
    for notice, rows in notices.items():
        typer.echo(
            f"{count_of(len(rows), 'record')} ({', '.join(found.rows[rows[:3]])}{', ...' * (len(rows) > 3)}): "
            f"{WORDS[notice]}"
        )
    if enrolled.opted_out:
        typer.echo(f"{enrolled.opted_out} left out: they or their subjects are on the federation's opt-out list")
    if enrolled.refused:
        typer.echo(
            f"{enrolled.refused} refused: they or their subjects were deleted, or may have been, with the whole site; "
            "list those with new consent in a file for --new-consent"
        )


def _fit_to_data(
    given: dict[str, ConfigValue], dataset: Dataset, conventions: Conventions | None, card: FederationCard | None
) -> Settings:
    classes = max(dataset.num_classes, len(conventions.classes) if conventions else 0)
    settings = fit_classes({"image-shape": str(dataset.image_shape), **given}, classes, card)
    if settings.image_shape != dataset.image_shape:
        raise InvalidSetting(
            f"image-shape = {settings.image_shape}: the images are {dataset.image_shape}; leave the setting out"
        )
    return settings
