"""`munkey-client export`: the site's predictor as one ONNX file, for programs that know nothing of this one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import click
import typer

from fedmunkey.client.commands.options import EncoderOption, JsonOption, SettingOption, SiteDirOption, WeightsOption
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.programs import command_line
from fedmunkey.common.settings.settings_text import given_settings

_LOUD = (
    "CAUTION: this file holds the site's memory, numbers that are solved from the records of its own patients, masked "
    "by nobody and with no noise. Treat it as those records: whoever has it can tell more of them than of the shared "
    "weights, and after any deletion at this site it must be replaced (munkey-client recall)."
)


@faults_explained()
def export(
    site_dir: SiteDirOption,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The model to write (.onnx).", show_default=False)],
    case_mix: Annotated[
        str,
        typer.Option(
            click_type=click.Choice(["federation", "own"]),
            help="Whose class frequencies its answers assume: the federation's (the shared weights alone), or the "
            "site's own: then what is solved from its own patients' records goes into the file.",
        ),
    ] = "federation",
    begin: Annotated[
        str,
        typer.Option(
            click_type=click.Choice(["auto", "pictures", "features"]),
            help="What the model reads: pictures, keys and features of the encoder, or pictures where the encoder can "
            "be written in ONNX.",
        ),
    ] = "auto",
    setting: SettingOption = None,
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the site's predictor as one ONNX file, under exact, and note that it was given away.

    It answers as munkey-client predict does, without the site's bank: images (N, C, H, W) of 0 to 255 give
    probabilities and a label. Its metadata names federation, site, guarantee, release, case mix, classes, the last
    deletion order before it and how images are prepared. After a deletion munkey-client recall says which files must
    be replaced.

    Example: munkey-client export chest.onnx --site-dir hospital-1 --case-mix federation
    """
    # It brings the model and the encoder, whose import would slow down every other command.
    from fedmunkey.client.predicting.exporting.export import Begin
    from fedmunkey.client.predicting.exporting.export import export as write
    from fedmunkey.client.predicting.prediction import CaseMix

    given = given_settings(setting, encoder=encoder, encoder_weights=weights)
    made = write(SiteFolder(site_dir), file, given, CaseMix(case_mix), Begin(begin))
    if case_mix == CaseMix.OWN:
        sys.stderr.write(f"{_LOUD}\n")
    if as_json:
        command_line.print_json({"file": str(file), "sha256": made.model.digest, "facts": dict(made.facts)})
        return
    typer.echo(f"wrote {file}: SHA-256 {made.model.digest}, release {made.model.release[:16]}, case mix {case_mix}")
    if made.begins is Begin.FEATURES:
        why = f": {made.why}" if made.why else ""
        typer.echo(f"it begins with the encoder's keys and features, not with pictures{why}")
    else:
        typer.echo(f"it reads images of {made.facts['image-shape']}, grey levels 0 to 255")
    typer.echo(f"it is in the register of what was given away: munkey-client recall --site-dir {site_dir}")
