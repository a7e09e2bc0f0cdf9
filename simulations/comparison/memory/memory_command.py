"""`munkey-sim memory`: where a hospital's memory helps beside the federation's weights."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.options import EncoderOption, JsonOption, SettingOption, WeightsOption
from fedmunkey.common.settings.settings_text import given_settings
from fedmunkey.simulations.comparison.memory.memory_figures import Answered, Asked, ask
from fedmunkey.simulations.federation.encoded_set import EncodedSet, load_encoded
from fedmunkey.simulations.programs.json_values import finite_only
from fedmunkey.simulations.programs.machine import usable_cores
from fedmunkey.simulations.programs.options import DataDirOption, HospitalsOption, SeedsOption
from fedmunkey.simulations.programs.progress import Progress
from fedmunkey.simulations.programs.worker_processes import run_tasks
from fedmunkey.simulations.reporting.intervals import Interval
from fedmunkey.simulations.reporting.preamble import preamble

_Found = dict[tuple[str, Asked, int], Answered]
_ANSWERS = ("weights", "memory", "neighbours")


def memory(
    data: Annotated[
        list[str], typer.Option(help="digits, a MedMNIST-layout .npz by path, or a MedMNIST name. Repeatable.")
    ],
    hospitals: HospitalsOption = 5,
    seeds: SeedsOption = 5,
    guarantee: Annotated[Guarantee, typer.Option(help="exact or empirical: whose weights and memory.")] = (
        Guarantee.EXACT
    ),
    setting: SettingOption = None,
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    data_dir: DataDirOption = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Questions at the same time.")] = None,
    output: Annotated[Path | None, typer.Option(help="File for the figures, as JSON.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a hospital's memory adds: to a rare class, where it came late or has another scanner, to a new class.

    Hospitals differ in labels (alpha = 1). A late hospital has weights that others' records made, and its own memory;
    nothing is trained when it comes.

    Example: munkey-sim memory --data cells.npz --encoder squeezenet1_0 --weights squeezenet1_0.pth
    """
    if output is not None and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise InvalidSetting(f"--output {output}: must be a file in a folder that is there")
    if hospitals < 2:
        raise InvalidSetting(f"--hospitals {hospitals}: one of them comes late; give at least 2")
    if guarantee is Guarantee.CERTIFIED:
        raise InvalidSetting("--guarantee certified: is not asked here; give exact or empirical")
    given = given_settings(setting, guarantee=guarantee.value, encoder=encoder, encoder_weights=weights)
    found: _Found = {}
    with Progress.quiet() if as_json else Progress(Console(stderr=True)) as progress:
        sets = {one.name: one for one in (load_encoded(name, given, data_dir, progress) for name in data)}
        tasks = [(name, asked, seed) for name in sets for asked in Asked for seed in range(seeds)]
        with progress.counting("asking", len(tasks)) as count:

            def keep(task: tuple[str, Asked, int], answered: Answered) -> None:
                found[task] = answered
                count(1)

            run_tasks(
                ask,
                tasks,
                lambda task: (task[1], sets[task[0]].images, sets[task[0]].settings, hospitals, task[2]),
                cores=cores or usable_cores(),
                done=keep,
            )
    document = finite_only(
        {
            **preamble("memory", command_line.typed(), next(iter(sets.values())).settings),
            "hospitals": hospitals,
            "seeds": seeds,
            "sets": [one.describe() for one in sets.values()],
            "results": [
                {
                    "data": name,
                    "asked": asked.value,
                    "what": asked.what,
                    "seed": seed,
                    **asdict(found[name, asked, seed]),
                }
                for name, asked, seed in tasks
            ],
        }
    )
    if output is not None:
        output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if as_json:
        command_line.print_json(document)
        return
    for one in sets.values():
        command_line.print_table(_table(one, found, seeds))


def _table(encoded: EncodedSet, found: _Found, seeds: int) -> Table:
    over = f"mean of {seeds} seeds ± 95% interval" if seeds > 1 else "one seed"
    table = Table(title=f"{encoded.name}, %, {over}", title_justify="left")
    table.add_column("asked", no_wrap=True)
    for heading in ("weights alone", "with memory", "nearest neighbours"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what is counted")
    for asked in Asked:
        answered = [found[encoded.name, asked, seed] for seed in range(seeds)]
        figures = [str(Interval.of([getattr(one, name) for one in answered])) for name in _ANSWERS]
        table.add_row(asked.value, *figures, asked.what)
    return table
