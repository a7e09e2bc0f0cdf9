"""`munkey-client predict`: new images, classified with the site's bank, and how many stored entries speak for it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from fedmunkey.client.commands.display import progress_bars
from fedmunkey.client.commands.options import EncoderOption, JsonOption, SettingOption, SiteDirOption, WeightsOption
from fedmunkey.client.importing.pictures import Choices
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.records.dataset import batches
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import InvalidInput
from fedmunkey.common.programs import command_line
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.settings.settings_text import ConfigValue, given_settings
from fedmunkey.common.stop_signals import stop_event

if TYPE_CHECKING:
    from fedmunkey.client.predicting.picture_answers import PictureAnswer
    from fedmunkey.client.predicting.warm_predictor import Asked, WarmPredictor

_SOME_REFUSED = 1
"""Exit code where a file could not be used and others were answered."""

_LOOK_SECONDS = 1.0

ModelOption = Annotated[
    Path | None,
    typer.Option(
        help="Shared weights (.safetensors) that the coordinator wrote. Without them, those that the site has last "
        "taken over, or the first weights, with which the nearest entries vote."
    ),
]
SliceOption = Annotated[
    str | None,
    typer.Option("--slice", help="Which axial slice of a NIfTI volume, if not the one that the site imports."),
]
CaseMixOption = Annotated[
    str,
    typer.Option(
        click_type=click.Choice(["own", "federation"]),
        help="Under exact: whose class frequencies the answer assumes, the site's own (with its bank's memory) or "
        "the federation's (the shared weights alone).",
    ),
]
FrameOption = Annotated[
    str | None, typer.Option(help="Which frame of a DICOM file, if not the one that the site imports.")
]
BitsOption = Annotated[
    int | None, typer.Option(help="How many of a PNG's 16 bits hold values, if not as many as the site imports.")
]


@faults_explained()
def predict(
    site_dir: SiteDirOption,
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="IMAGE...", help="PNG, JPEG, DICOM or NIfTI files.")
    ] = None,
    follow: Annotated[
        Path | None,
        typer.Option(help="A folder instead of images: answer each new picture in it, until SIGINT or SIGTERM."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="With --follow: add the answers to this file of JSON lines, which also says what is answered already; "
            "stdout without it."
        ),
    ] = None,
    model: ModelOption = None,
    volume_slice: SliceOption = None,
    case_mix: CaseMixOption = "own",
    frame: FrameOption = None,
    bits: BitsOption = None,
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

    With --follow the model stays loaded. Each picture in the folder is answered once, as a line of JSON with its file's
    name; one that cannot be used has a reason instead. After a deletion, an arrival or a renewal the next answer is
    from the new state, and pictures wait while the site does not answer.

    Example: munkey-client predict scan.png --site-dir hospital-1
    """
    # Evaluation brings scikit-learn, whose import would slow down every other command.
    from fedmunkey.client.deletions.agent import catch_up
    from fedmunkey.client.predicting.warm_predictor import WarmPredictor

    if (follow is None) is (not images):
        raise InvalidInput("name images, or a folder with --follow")
    if output is not None and follow is None:
        raise InvalidInput(f"--output {output} is for --follow; redirect what --json prints")
    asked = chosen(given_settings(setting, encoder=encoder, encoder_weights=weights), model, case_mix)
    folder = SiteFolder(site_dir)
    predictor = WarmPredictor(folder, asked(volume_slice, frame, bits))
    if service is not None:
        with folder.open() as store, DeletionChannel(service, identity=folder.find_identity()) as channel:
            catch_up(store, channel)
    if follow is not None:
        _follow(predictor, follow, output)
        return
    said = predictor.weights()
    answers = _answer_all(predictor, images or [], quiet=as_json)
    refused = [number for number, each in enumerate(answers, 1) if each.prediction is None]
    if len(refused) == len(answers):
        # A file is often called by its patient, and an error goes into logs.
        reason = answers[refused[0] - 1].refused
        raise InvalidInput(f"image {refused[0]} of {len(answers)} cannot be used: {reason}")
    _show(answers, said, as_json=as_json)
    if refused:
        raise typer.Exit(_SOME_REFUSED)


def chosen(
    given: dict[str, ConfigValue], model: Path | None, case_mix: str
) -> Callable[[str | None, str | None, int | None], Asked]:
    """Return what makes a slice, a frame and a number of bits, as a person gives them, into all that is asked for."""
    from fedmunkey.client.predicting.prediction import CaseMix
    from fedmunkey.client.predicting.warm_predictor import Asked

    def choose(volume_slice: str | None, frame: str | None, bits: int | None) -> Asked:
        """Return all that is asked for, with what was typed in place of what is kept."""
        typed = Choices.parse(volume_slice or "", frame or "", bits)

        def change(choices: Choices) -> Choices:
            if volume_slice is not None:
                choices = replace(choices, volume_slice=typed.volume_slice, middle_slice=typed.middle_slice)
            if frame is not None:
                choices = replace(choices, frame=typed.frame, middle_frame=typed.middle_frame)
            return choices if bits is None else replace(choices, bits=bits)

        return Asked(given, model, CaseMix(case_mix), change)

    return choose


def _answer_all(predictor: WarmPredictor, images: list[Path], *, quiet: bool) -> list[PictureAnswer]:
    answers: list[PictureAnswer] = []
    with progress_bars(quiet=quiet) as bars:
        task = bars.add_task("reading images", total=len(images))
        for some in batches(images):
            answers += predictor.answer([(path, str(path)) for path in some])
            bars.update(task, advance=len(some))
    return answers


def _follow(predictor: WarmPredictor, folder: Path, output: Path | None) -> None:
    from fedmunkey.client.predicting.following import FolderFollower, open_answers, read_done

    if not folder.is_dir():
        raise InvalidInput(f"{folder} is no folder; make it, or name another with --follow")
    done = set() if output is None else read_done(output)
    answers = sys.stdout if output is None else open_answers(output)

    def write(document: dict[str, Any]) -> None:
        answers.write(json.dumps(document, ensure_ascii=False) + "\n")
        answers.flush()

    def tell(reason: str) -> None:
        sys.stderr.write(f"nothing is answered for now: {reason}\n")
        sys.stderr.flush()

    follower = FolderFollower(folder, predictor, write, tell, done)
    try:
        with stop_event() as stop:
            sys.stderr.write(f"following {folder}\n")
            sys.stderr.flush()
            while not stop.wait(_LOOK_SECONDS):
                follower.look()
    finally:
        if output is not None:
            answers.close()


def _show(answers: list[PictureAnswer], weights: str, *, as_json: bool) -> None:
    numbered = list(enumerate(answers, 1))
    if as_json:
        predictions, refused = (
            [{"image": number, **each.document()} for number, each in numbered if (each.prediction is None) is missing]
            for missing in (False, True)
        )
        command_line.print_json({"weights": weights, "predictions": predictions, "refused": refused})
        return
    table = command_line.plain_table(
        "image", "class", "supporting entries", numbers=("probability", "nearest", "mean similarity")
    )
    for each in answers:
        if each.prediction is None:
            continue
        found = each.prediction
        similarities = [neighbour.similarity for neighbour in found.supporting]
        table.add_row(
            each.name,
            each.class_name(found.label),
            f"{len(found.supporting)} of {len(found.neighbours)}",
            f"{100 * found.probabilities[found.label]:.1f}%",
            f"{max(similarities):.3f}" if similarities else "",
            f"{sum(similarities) / len(similarities):.3f}" if similarities else "",
        )
    command_line.print_table(table)
    for each in answers:
        for remark in each.remarks:
            typer.echo(f"{each.name}: {remark}")
        if each.prediction is None:
            typer.echo(f"{each.name} cannot be used: {each.refused}")
    typer.echo(f"weights: {weights}")
