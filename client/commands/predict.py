"""`munkey-client predict`: new images, classified with the site's bank, and how many stored entries speak for it."""

from __future__ import annotations

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
from fedmunkey.client.importing.pictures import Choices, UnusablePicture, read_picture
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
    setting: SettingOption = None,
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    service: Annotated[
        str | None, typer.Option(help="Deletion service to catch up with first; by default nobody is called.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Classify new images, and say how many of the site's entries support the answer.

    Images are called by their number in the order typed: neither their names nor whose entries were read is shown.
    Supporting entries are those of the predicted class among the nearest that the model read. How images are brought to
    the federation's shape, and the names of the classes, are those of the site's imports.

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
        choices = predictor.choices if volume_slice is None else Choices.parse(volume_slice)
        with progress_bars(quiet=as_json) as bars:
            task = bars.add_task("reading images", total=len(images))
            keys, inputs = [], []
            for some in batches(list(enumerate(images, 1))):
                pictures = [
                    _read(path, f"image {number} of {len(images)}", choices, predictor.recipe.settings.image_shape)
                    for number, path in some
                ]
                batch = predictor.encode(torch.from_numpy(np.stack(pictures)))
                keys.append(batch[0])
                inputs.append(batch[1])
                bars.update(task, advance=len(some))
        mix = CaseMix(case_mix)
        found = classify(predictor.model, store, torch.cat(keys), torch.cat(inputs), predictor.recipe, mix)
    _show(found, predictor, as_json=as_json)


def _read(path: Path, name: str, choices: Choices, shape: ImageShape) -> NDArray[np.uint8]:
    try:
        return fit(read_picture(path, choices), shape)
    except UnusablePicture as reason:
        # A file is often called by its patient.
        raise InvalidInput(f"{name} cannot be used: {reason}") from None


def _show(found: list[Prediction], predictor: Predictor, *, as_json: bool) -> None:
    if as_json:
        documents = [_document(number, each, predictor) for number, each in enumerate(found, 1)]
        command_line.print_json({"weights": predictor.weights, "predictions": documents})
        return
    table = command_line.plain_table(
        "image", "class", "supporting entries", numbers=("probability", "nearest", "mean similarity")
    )
    for number, each in enumerate(found, 1):
        similarities = [neighbour.similarity for neighbour in each.supporting]
        table.add_row(
            str(number),
            predictor.class_name(each.label),
            f"{len(each.supporting)} of {len(each.neighbours)}",
            f"{100 * each.probabilities[each.label]:.1f}%",
            f"{max(similarities):.3f}" if similarities else "",
            f"{sum(similarities) / len(similarities):.3f}" if similarities else "",
        )
    command_line.print_table(table)
    typer.echo(f"weights: {predictor.weights}")


def _document(number: int, found: Prediction, predictor: Predictor) -> dict[str, Any]:
    return {
        "image": number,
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
