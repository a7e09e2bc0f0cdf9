"""`munkey-sim encoders`: encoders side by side on some data sets."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.model.model_choice import choose_encoder
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.options import JsonOption, SettingOption
from fedmunkey.common.settings.settings import ONNX, Settings
from fedmunkey.common.settings.settings_text import ConfigValue, given_settings
from fedmunkey.simulations.comparison.encoder_figures import EncoderFigures, measure_encoder, sample
from fedmunkey.simulations.federation.sources import load_dataset
from fedmunkey.simulations.programs.json_values import finite_only
from fedmunkey.simulations.programs.machine import torch_threads
from fedmunkey.simulations.programs.options import DataDirOption
from fedmunkey.simulations.programs.progress import Progress
from fedmunkey.simulations.reporting.preamble import preamble

_HEADINGS = ("validation %", "test %", "4 neighbours %", "ms an image", "numbers", "kB")


def encoders(
    data: Annotated[
        list[str], typer.Option(help="digits, a MedMNIST-layout .npz by path, or a MedMNIST name. Repeatable.")
    ],
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            help="An encoder as --set encoder=NAME has it, with the file of its weights, if any, as NAME=FILE. "
            "Repeatable; descriptor by default."
        ),
    ] = None,
    records: Annotated[int, typer.Option(min=10, help="Most records of each split, drawn; the same for all.")] = 2000,
    setting: SettingOption = None,
    data_dir: DataDirOption = None,
    output: Annotated[Path | None, typer.Option(help="File for the figures, as JSON.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare encoders: accuracy of what exact solves for, accuracy of nearest neighbours, time an image, and size.

    Pooling of feature maps is chosen for each encoder and data set on validation records. Times are of one processor.

    Example: munkey-sim encoders --data cells.npz --encoder squeezenet1_0=squeezenet1_0.pth --encoder onnx:chest.onnx
    """
    if output is not None and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise InvalidSetting(f"--output {output}: must be a file in a folder that is there")
    overrides = given_settings(setting)
    own = next((name for name in overrides if name in ("encoder", "encoder-weights", "encoder-pooling")), None)
    if own is not None:
        raise InvalidSetting(f"{own} = {overrides[own]}: encoders are named with --encoder, and all poolings are tried")
    named = [(name, _settings_of(name)) for name in encoder or ["descriptor"]]
    sets = {Path(name).stem: load_dataset(name, data_dir=data_dir, seed=0) for name in data}
    # What cannot be used is refused before minutes are spent on the first one.
    for _, given in named:
        for dataset in sets.values():
            Settings.parse({**overrides, **given, "image-shape": str(dataset.image_shape)})
    found: list[EncoderFigures] = []
    with Progress.quiet() if as_json else Progress(Console(stderr=True)) as progress, torch_threads(1):
        for label, dataset in sets.items():
            some = sample(dataset, records, seed=0)
            for name, given in named:
                shape = {"num-classes": dataset.num_classes, "image-shape": str(dataset.image_shape)}
                settings = Settings.parse({**overrides, **given, **shape})
                made = choose_encoder(settings)
                with progress.counting(f"{name.partition('=')[0]} on {label}", len(some)) as count:
                    found.append(measure_encoder(label, _label(name), some, made, settings, count))
    document = finite_only(
        {
            **preamble("encoders", command_line.typed(), Settings.parse(overrides)),
            "records": records,
            "results": [{**asdict(one), "chosen": one.chosen.pooling} for one in found],
        }
    )
    if output is not None:
        output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if as_json:
        command_line.print_json(document)
        return
    for label in sets:
        command_line.print_table(_table(label, [one for one in found if one.data == label]))


def _settings_of(named: str) -> dict[str, ConfigValue]:
    """Read NAME, NAME=FILE or onnx:FILE."""
    name, _, file = named.partition("=") if not named.startswith(f"{ONNX}:") else (named, "", "")
    return {"encoder": name, **({"encoder-weights": file} if file else {})}


def _label(named: str) -> str:
    name = named.partition("=")[0]
    return f"{ONNX}:{Path(name.removeprefix(f'{ONNX}:')).name}" if name.startswith(f"{ONNX}:") else name


def _table(label: str, found: list[EncoderFigures]) -> Table:
    count = found[0].records if found else 0
    table = Table(title=f"{label}, {count} records of all splits", title_justify="left")
    for heading in ("encoder", "pooling"):
        table.add_column(heading, no_wrap=True)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right")
    for one in found:
        best = one.chosen
        figures: list[Any] = [f"{value:.1f}" for value in (best.validation, best.test, best.neighbours)]
        figures += [f"{one.milliseconds:.1f}", str(best.numbers), f"{best.kilobytes:.1f}"]
        table.add_row(one.encoder, best.pooling or "-", *figures)
    return table
