"""`munkey-client enrol`: records from a file into a site's key store, which is made if there is none."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import Progress

from client.commands.display import plain_table, progress_bars, shown_in
from client.commands.faults import faults_explained
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
from client.dataset import Consent, Dataset, Split
from client.enrolment import encode
from client.enrolment import enrol as enrol_batches
from client.key_store import Enrolled, KeyStore
from client.medmnist_files import read_npz
from client.site import SiteFolder
from client.site_enrolment import SiteEnrolment, check_site_name, complete_arrivals, read_site_secret
from common import command_line
from common.errors import InvalidDataset, InvalidSetting
from common.model_choice import choose_encoder, choose_shape
from common.settings import ConfigValue, Settings

_FEWEST_CLASSES = 2
"""A site may hold one class only, a federation has at least two."""


@faults_explained()
def enrol(
    site_dir: SiteDirOption,
    site: SiteNameOption,
    data: Annotated[Path, typer.Option(help="Records in the MedMNIST layout (.npz).")],
    secret: FirstSecretOption = None,
    setting: SettingOption = None,
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    guarantee: GuaranteeOption = None,
    epsilon: EpsilonOption = None,
    delta: DeltaOption = None,
    consent: Annotated[
        Consent, typer.Option(help="Consent of the records of this file, unless the file says it for each of them.")
    ] = Consent.REVOCABLE,
    new_consent: NewConsentOption = None,
    master_key: Annotated[
        Path | None,
        typer.Option(help="Where the master key of a site that is made is kept; beside the key store by default."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Add records to a site's key store, and make the site's folder the first time.

    Give the settings that the federation trains with; image shape and number of classes come from the data.
    Guarantee, epsilon and delta are promised to the patients the first time, and cannot be changed later.
    If it is interrupted, run it again: it goes on where it was.

    Example: munkey-client enrol --site-dir hospital-1 --site hospital-1 --data scans.npz --secret federation.secret
    """
    check_site_name(site)
    dataset = read_npz(data, consent=consent)
    consents = _read_consents(new_consent, dataset, data)
    overrides = given_settings(
        setting,
        {
            "encoder": encoder,
            "encoder-weights": weights,
            "guarantee": guarantee,
            "epsilon": epsilon,
            "delta": delta,
        },
    )
    settings = _fit_to_data(overrides, dataset)
    folder = SiteFolder(site_dir)
    shared = read_site_secret(folder, secret)
    shape = choose_shape(settings)
    enrolment = SiteEnrolment(
        folder, site, settings, choose_encoder(settings), shape, shared, frozenset(overrides), master_key
    )
    enrolment.check()
    with enrolment.open() as store, progress_bars(quiet=as_json) as bars:
        enrolled = _add(enrolment, store, dataset, consents, bars)
        complete_arrivals(folder, store, shown_in(bars))
        totals = {split.value: store.records.count(split) for split in Split}
    _show(site, enrolled, totals, as_json)


def _add(
    enrolment: SiteEnrolment, store: KeyStore, dataset: Dataset, new_consent: frozenset[str], bars: Progress
) -> Enrolled:
    """Encode and add the records that the store does not hold yet."""
    secret = enrolment.secret
    held = np.array([store.records.holds(secret.reference(record)) for record in dataset.record_ids], dtype=np.bool_)
    known = int(held.sum())
    task = bars.add_task("encoding images", total=len(dataset), completed=known)
    return Enrolled(known=known) + enrol_batches(
        store,
        encode(enrolment.encoder, dataset.select(~held)),
        secret,
        new_consent=new_consent,
        progress=lambda more: bars.update(task, advance=more),
    )


def _read_consents(path: Path | None, dataset: Dataset, data: Path) -> frozenset[str]:
    if path is None:
        return frozenset()
    ids = frozenset(read_ids(path))
    unknown = len(ids.difference(dataset.record_ids.tolist()))
    if unknown:
        raise InvalidDataset(f"{unknown} of the {len(ids)} record ids in {path} are not in {data}; correct them")
    return ids


def _fit_to_data(overrides: dict[str, ConfigValue], dataset: Dataset) -> Settings:
    found = {"image-shape": str(dataset.image_shape), "num-classes": max(dataset.num_classes, _FEWEST_CLASSES)}
    settings = Settings.parse({**found, **overrides})
    if settings.image_shape != dataset.image_shape:
        raise InvalidSetting(
            f"image-shape = {settings.image_shape}: the images are {dataset.image_shape}; leave the setting out"
        )
    if settings.num_classes < dataset.num_classes:
        raise InvalidSetting(
            f"num-classes = {settings.num_classes}: the data have {dataset.num_classes} classes; "
            "give at least as many, or leave the setting out"
        )
    return settings


def _show(site: str, enrolled: Enrolled, totals: dict[str, int], as_json: bool) -> None:
    if as_json:
        command_line.print_json({"site": site, **asdict(enrolled), "records": totals})
        return
    table = plain_table("site", numbers=("added", "known", "refused", *totals))
    table.add_row(site, *map(str, (enrolled.added, enrolled.known, enrolled.refused, *totals.values())))
    command_line.print_table(table)
    if enrolled.refused:
        typer.echo(
            f"{enrolled.refused} refused: they or their subjects were deleted; "
            "list those with new consent in a file for --new-consent"
        )
