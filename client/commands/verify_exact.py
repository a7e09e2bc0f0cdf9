"""`munkey-client verify-exact`: whether a site's state is that of never having held what it has deleted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.client.commands.display import progress_bars
from fedmunkey.client.commands.options import EncoderOption, JsonOption, SettingOption, SiteDirOption, WeightsOption
from fedmunkey.client.importing.array_records import ArrayRecords
from fedmunkey.client.importing.encoding import encode
from fedmunkey.client.importing.site_enrolment import check_encoder
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.learning.exact_state import compare_with_rebuilt
from fedmunkey.client.records.dataset import Consent, Dataset
from fedmunkey.client.records.medmnist_files import read_array_file
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.model.encoders import Encoding
from fedmunkey.common.model.model_choice import choose_encoder
from fedmunkey.common.programs import command_line
from fedmunkey.common.settings.settings import Settings
from fedmunkey.common.settings.settings_text import given_settings

_DIFFERENT = 1
"""Exit code where the states differ."""


@faults_explained()
def verify_exact(
    site_dir: SiteDirOption,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="The files that were enrolled, in the same order; without them the stored keys and inputs are used. "
            "Repeatable."
        ),
    ] = None,
    consent: Annotated[
        Consent, typer.Option(help="What was given to enrol: the consent of records whose file does not say.")
    ] = Consent.REVOCABLE,
    setting: SettingOption = None,
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build the site's state anew without what was deleted, and compare it with the site's own, byte for byte.

    Both are summed up by a digest over every record, key, input, exemplar token and neighbour list. Exit code 1 means
    that they differ.

    Example: munkey-client verify-exact --site-dir hospital-1 --data scans.npz
    """
    folder = SiteFolder(site_dir)
    files = [(path, read_array_file(path, consent=consent)) for path in data or []]
    with folder.open() as store:
        secret, site = folder.read_secret(), store.description.site
        datasets = [ArrayRecords.of(path, found, store, secret).named(site) for path, found in files]
        total = sum(map(len, datasets)) or sum(store.records.count_consents().values())
        held = store.description
    batches: Iterator[tuple[Dataset, Encoding]] | None = None
    if datasets:
        given = given_settings(setting, encoder=encoder, encoder_weights=weights)
        chosen = choose_encoder(Settings.parse({"image-shape": str(datasets[0].image_shape), **given}))
        check_encoder(held, chosen, "give the same --encoder and --weights as to enrol")
        batches = chain.from_iterable(encode(chosen, dataset) for dataset in datasets)
    with progress_bars(quiet=as_json) as bars:
        task = bars.add_task("building the state anew", total=total)
        found = compare_with_rebuilt(folder, batches, lambda more: bars.update(task, advance=more))
    if as_json:
        command_line.print_json({**asdict(found), "identical": found.identical, "from_files": bool(datasets)})
    else:
        table = command_line.plain_table("", "digest", numbers=("records",))
        table.add_row("this site", found.state, str(found.records))
        table.add_row("built anew", found.built, "")
        command_line.print_table(table)
        source = f"from files, without {found.deleted} deleted" if datasets else "from the records that are left"
        verdict = "the same, byte for byte" if found.identical else "DIFFERENT: something of a deleted record is left"
        typer.echo(f"{verdict} ({source})")
    if not found.identical:
        raise typer.Exit(_DIFFERENT)
