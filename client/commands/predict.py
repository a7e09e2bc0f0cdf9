"""`munkey-client predict`: new images, classified with the site's bank, and how many stored entries speak for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import numpy as np
import torch
import typer
from numpy.typing import NDArray

from fedmunkey.client.commands.display import progress_bars
from fedmunkey.client.commands.options import EncoderOption, JsonOption, SettingOption, SiteDirOption, WeightsOption
from fedmunkey.client.importing.fitting import fit
from fedmunkey.client.importing.pictures import Choices, Remark, UnusablePicture, open_picture
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.records.dataset import batches
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import InvalidInput
from fedmunkey.common.programs import command_line
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.settings.settings import ImageShape
from fedmunkey.common.settings.settings_text import given_settings

if TYPE_CHECKING:
    from fedmunkey.client.predicting.prediction import Prediction
    from fedmunkey.client.predicting.predictor import Predictor

_SOME_REFUSED = 1
"""Exit code where a file could not be used and others were answered."""


@faults_explained()
def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="PNG, JPEG, DICOM or NIfTI files.")],
    site_dir: SiteDirOption,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Shared weights (.safetensors) that the coordinator wrote. Without them, those that the site has last "
            "taken over, or the first weights, with which the nearest entries vote."
        ),
    ] = None,
    volume_slice: Annotated[
        str | None,
        typer.Option("--slice", help="Which axial slice of a NIfTI volume, if not the one that the site imports."),
    ] = None,
    case_mix: Annotated[
        str,
        typer.Option(
            click_type=click.Choice(["own", "federation"]),
            help="Under exact: whose class frequencies the answer assumes, the site's own (with its bank's memory) or "
            "the federation's (the shared weights alone).",
        ),
    ] = "own",
    frame: Annotated[
        str | None, typer.Option(help="Which frame of a DICOM file, if not the one that the site imports.")
    ] = None,
    bits: Annotated[
        int | None, typer.Option(help="How many of a PNG's 16 bits hold values, if not as many as the site imports.")
    ] = None,
    setting: SettingOption = None,
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    service: Annotated[
        str | None, typer.Option(help="Deletion service to catch up with first; by default nobody is called.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Classify new images, and say how many of the site's entries support the answer.

    Images are called as they were typed; whose entries were read is not shown. Supporting entries are those of the
    predicted class among the nearest that the model read. How images are brought to the federation's shape, and the
    names of the classes, are those of the site's imports. A file that cannot be used is named with the reason, and the
    others are answered; exit code 1 means that there was one.

    Example: munkey-client predict scan.png --site-dir hospital-1 --model output/best.safetensors
    """
    # Evaluation brings scikit-learn, whose import would slow down every other command.
    from fedmunkey.client.deletions.agent import catch_up
    from fedmunkey.client.predicting.prediction import CaseMix, classify
    from fedmunkey.client.predicting.predictor import choose_predictor

    folder = SiteFolder(site_dir)
    given = given_settings(setting, encoder=encoder, encoder_weights=weights)
    with folder.open() as store:
        if service is not None:
            with DeletionChannel(service, identity=folder.find_identity()) as channel:
                catch_up(store, channel)
        store.database.check_caught_up()
        predictor = choose_predictor(folder, store, given, model)
        choices = _choose(predictor.choices, volume_slice, frame, bits)
        read, keys, inputs = _read_all(images, choices, predictor, quiet=as_json)
        unusable = [(number, each.refused) for number, each in enumerate(read, 1) if each.refused]
        if not keys:
            # A file is often called by its patient, and an error goes into logs.
            raise InvalidInput(f"image {unusable[0][0]} of {len(images)} cannot be used: {unusable[0][1]}")
        mix = CaseMix(case_mix)
        found = classify(
            *(predictor.model, store, torch.cat(keys), torch.cat(inputs), predictor.recipe, mix, predictor.answering)
        )
    _show(read, found, predictor, as_json=as_json)
    if unusable:
        raise typer.Exit(_SOME_REFUSED)


@dataclass(frozen=True)
class _Read:
    """A file as it was typed, why it cannot be used, empty if it can, and what should be known of it."""

    path: Path
    refused: str = ""
    remarks: tuple[Remark, ...] = ()


def _choose(choices: Choices, volume_slice: str | None, frame: str | None, bits: int | None) -> Choices:
    """Return the site's choices, with those that a person gave in their place."""
    asked = Choices.parse(volume_slice or "", frame or "", bits)
    if volume_slice is not None:
        choices = replace(choices, volume_slice=asked.volume_slice, middle_slice=asked.middle_slice)
    if frame is not None:
        choices = replace(choices, frame=asked.frame, middle_frame=asked.middle_frame)
    return choices if bits is None else replace(choices, bits=bits)


def _read_all(
    images: list[Path], choices: Choices, predictor: Predictor, *, quiet: bool
) -> tuple[list[_Read], list[torch.Tensor], list[torch.Tensor]]:
    """Return what is known of each file, and of those that can be used keys and inputs, in batches."""
    shape = predictor.recipe.settings.image_shape
    read: list[_Read] = []
    keys, inputs = [], []
    with progress_bars(quiet=quiet) as bars:
        task = bars.add_task("reading images", total=len(images))
        for some in batches(images):
            opened = [_read(path, choices, shape) for path in some]
            read += [each for each, _ in opened]
            if pictures := [picture for _, picture in opened if picture is not None]:
                batch = predictor.encode(torch.from_numpy(np.stack(pictures)))
                keys.append(batch[0])
                inputs.append(batch[1])
            bars.update(task, advance=len(some))
    return read, keys, inputs


def _read(path: Path, choices: Choices, shape: ImageShape) -> tuple[_Read, NDArray[np.uint8] | None]:
    try:
        picture = open_picture(path, choices)
    except UnusablePicture as reason:
        return _Read(path, str(reason)), None
    return _Read(path, remarks=picture.remarks), fit(picture.pixels, shape)


def _show(read: list[_Read], found: list[Prediction], predictor: Predictor, *, as_json: bool) -> None:
    numbered = list(enumerate(read, 1))
    answered = list(zip([each for each in numbered if not each[1].refused], found, strict=True))
    refused = [(number, each) for number, each in numbered if each.refused]
    if as_json:
        command_line.print_json(
            {
                "weights": predictor.weights,
                "predictions": [_document(number, each, answer, predictor) for (number, each), answer in answered],
                "refused": [
                    {"image": number, "file": str(each.path), "reason": each.refused} for number, each in refused
                ],
            }
        )
        return
    table = command_line.plain_table(
        "image", "class", "supporting entries", numbers=("probability", "nearest", "mean similarity")
    )
    for (_, read_file), each in answered:
        similarities = [neighbour.similarity for neighbour in each.supporting]
        table.add_row(
            str(read_file.path),
            predictor.class_name(each.label),
            f"{len(each.supporting)} of {len(each.neighbours)}",
            f"{100 * each.probabilities[each.label]:.1f}%",
            f"{max(similarities):.3f}" if similarities else "",
            f"{sum(similarities) / len(similarities):.3f}" if similarities else "",
        )
    command_line.print_table(table)
    for _, each_read in numbered:
        for remark in each_read.remarks:
            typer.echo(f"{each_read.path}: {remark}")
        if each_read.refused:
            typer.echo(f"{each_read.path} cannot be used: {each_read.refused}")
    typer.echo(f"weights: {predictor.weights}")


def _document(number: int, read: _Read, found: Prediction, predictor: Predictor) -> dict[str, Any]:
    return {
        "image": number,
        "file": str(read.path),
        "remarks": [remark.value for remark in read.remarks],
        "class": predictor.class_name(found.label),
        "label": found.label,
        "probability": found.probabilities[found.label],
        "probabilities": {predictor.class_name(label): value for label, value in enumerate(found.probabilities)},
        "retrieved": len(found.neighbours),
        "supporting": len(found.supporting),
        "neighbours": [
            {"class": predictor.class_name(neighbour.label), "similarity": neighbour.similarity}
            for neighbour in found.neighbours
        ],
    }
