"""`munkey-client verify-exact`: whether a site's state is that of never having held what it has deleted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from client.commands.display import plain_table, progress_bars
from client.commands.faults import faults_explained
from client.commands.options import JsonOption, SiteDirOption
from client.dataset import Consent, Dataset
from client.enrolment import encode
from client.exact_state import compare_with_rebuilt
from client.medmnist_files import read_npz
from client.site import SiteFolder
from common import command_line
from common.encoders import Encoder, Encoding
from common.errors import KeyStoreError
from common.model_choice import choose_encoder
from common.settings import Settings, parse_assignments

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
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", help="A setting of the federation as key=value, see docs/settings.md. Repeatable."),
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="Short for --set encoder=NAME.")] = None,
    weights: Annotated[str | None, typer.Option(help="Short for --set encoder-weights=FILE.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Build the site's state anew without what was deleted, and compare it with the site's own, byte for byte.

    Both are summed up by a digest over every record, key, input, exemplar token and neighbour list. Exit code 1 means
    that they differ.

    Example: munkey-client verify-exact --site-dir hospital-1 --data scans.npz
    """
    folder = SiteFolder(site_dir)
    datasets = [read_npz(path, consent=consent) for path in data or []]
    with folder.open() as store:
        total = sum(map(len, datasets)) or sum(store.records.count_consents().values())
        fingerprint = store.description.encoder
    batches: Iterator[tuple[Dataset, Encoding]] | None = None
    if datasets:
        overrides = parse_assignments(setting or [])
        shorthands = {"encoder": encoder, "encoder-weights": weights}
        overrides |= {name: value for name, value in shorthands.items() if value is not None}
        batches = _encoded(datasets, _choose(overrides, datasets[0], fingerprint))
    with progress_bars(quiet=as_json) as bars:
        task = bars.add_task("building the state anew", total=total)
        found = compare_with_rebuilt(folder, batches, lambda more: bars.update(task, advance=more))
    if as_json:
        command_line.print_json({**asdict(found), "identical": found.identical, "from_files": bool(datasets)})
    else:
        table = plain_table("", "digest", numbers=("records",))
        table.add_row("this site", found.state, str(found.records))
        table.add_row("built anew", found.built, "")
        command_line.print_table(table)
        source = f"from files, without {found.deleted} deleted" if datasets else "from the records that are left"
        verdict = "the same, byte for byte" if found.identical else "DIFFERENT: something of a deleted record is left"
        typer.echo(f"{verdict} ({source})")
    if not found.identical:
        raise typer.Exit(_DIFFERENT)


def _choose(overrides: dict[str, bool | int | float | str], first: Dataset, fingerprint: str) -> Encoder:
    settings = Settings.parse({"image-shape": str(first.image_shape), **overrides})
    chosen = choose_encoder(settings)
    if chosen.fingerprint != fingerprint:
        raise KeyStoreError(
            f"the key store's keys are of encoder {fingerprint}, these would be of {chosen.fingerprint}; "
            "give the same --encoder and --weights as to enrol"
        )
    return chosen


def _encoded(datasets: list[Dataset], encoder: Encoder) -> Iterator[tuple[Dataset, Encoding]]:
    for dataset in datasets:
        yield from encode(encoder, dataset)
