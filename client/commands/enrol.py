"""`munkey-client enrol`: records from a file into a site's key store, which is made if there is none."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from fedmunkey.client.commands.display import counts_table, progress_bars, shown_in
from fedmunkey.client.commands.enrolment_options import EnrolmentOptions
from fedmunkey.client.importing.site_enrolment import OpenEnrolment, fit_classes
from fedmunkey.client.key_store import Enrolled
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.records.dataset import Dataset
from fedmunkey.client.records.medmnist_files import read_npz
from fedmunkey.common.errors import InvalidSetting
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

    Give the settings that the federation trains with; image shape and number of classes come from the data.
    Guarantee, epsilon and delta are promised to the patients the first time, and cannot be changed later.
    If it is interrupted, run it again: it goes on where it was.

    Example: munkey-client enrol --site-dir hospital-1 --site hospital-1 --data scans.npz --secret federation.secret
    """
    dataset = read_npz(data, consent=options.consent)
    new_consent = options.read_new_consent(dataset.record_ids.tolist(), data)
    given = options.settings()
    enrolment = options.enrolment(_fit_to_data(given, dataset), given, new_consent, master_key)
    with closing(OpenEnrolment(enrolment)) as site, progress_bars(quiet=options.as_json) as bars:
        store = site.make()
        held = [store.records.holds(enrolment.secret.reference(record)) for record in dataset.record_ids]
        enrolled = Enrolled(known=sum(held))
        task = bars.add_task("encoding images", total=len(dataset), completed=enrolled.known)
        for batch in dataset.select(~np.array(held, dtype=np.bool_)).batches():
            enrolled += site.take(batch)[0]
            bars.update(task, advance=len(batch))
        totals = site.complete(shown_in(bars))
    counts = asdict(enrolled)
    if options.as_json:
        command_line.print_json({"site": options.site, **counts, "records": totals})
        return
    command_line.print_table(counts_table(options.site, {**counts, **totals}))
    if enrolled.refused:
        typer.echo(
            f"{enrolled.refused} refused: they or their subjects were deleted; "
            "list those with new consent in a file for --new-consent"
        )


def _fit_to_data(given: dict[str, ConfigValue], dataset: Dataset) -> Settings:
    settings = fit_classes({"image-shape": str(dataset.image_shape), **given}, dataset.num_classes)
    if settings.image_shape != dataset.image_shape:
        raise InvalidSetting(
            f"image-shape = {settings.image_shape}: the images are {dataset.image_shape}; leave the setting out"
        )
    return settings
