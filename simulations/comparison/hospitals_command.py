"""`munkey-sim hospitals`: what each hospital gains by the federation over staying alone."""

from __future__ import annotations

import json
import sys
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
from fedmunkey.simulations.comparison.hospital_gains import (
    ALONE,
    BETTER,
    FEDERATED,
    LOSES,
    MIXES,
    NEIGHBOURS,
    Division,
    Gains,
    compare_hospitals,
    divisions_digests,
    share_that_loses,
)
from fedmunkey.simulations.federation.consent import parse_share
from fedmunkey.simulations.federation.encoded_set import EncodedSet, load_encoded
from fedmunkey.simulations.forget_sets.question import Question, describe_question
from fedmunkey.simulations.forget_sets.random_records import RandomRecords
from fedmunkey.simulations.programs.json_values import finite_only
from fedmunkey.simulations.programs.machine import usable_cores
from fedmunkey.simulations.programs.options import DataDirOption, ForgetOption, HospitalsOption, SeedsOption
from fedmunkey.simulations.programs.progress import Progress
from fedmunkey.simulations.programs.worker_processes import run_tasks
from fedmunkey.simulations.reporting.preamble import preamble
from fedmunkey.simulations.unlearning.method import Budget

_ALPHAS = (float("inf"), 1.0, 0.3)
_COLUMNS = {
    "accuracy": "accuracy %",
    "macro_f1": "macro-F1 %",
    "balanced_accuracy": "balanced %",
    "auroc": "AUROC %",
    "calibration": "ECE %",
    "loss": "NLL",
}


def hospitals(
    data: Annotated[
        list[str], typer.Option(help="digits, a MedMNIST-layout .npz by path, or a MedMNIST name. Repeatable.")
    ],
    alpha: Annotated[
        list[float] | None,
        typer.Option(help="How alike hospitals are, as in munkey-sim run. Repeatable; inf, 1 and 0.3 by default."),
    ] = None,
    hospitals: HospitalsOption = 5,
    seeds: SeedsOption = 5,
    forget: ForgetOption = "10%",
    guarantee: Annotated[Guarantee | None, typer.Option(help="Short for --set guarantee=NAME.")] = None,
    setting: SettingOption = None,
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    data_dir: DataDirOption = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Divisions at the same time.")] = None,
    output: Annotated[Path | None, typer.Option(help="File for the figures, as JSON.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare each hospital with itself: the federation against staying alone, for the common case mix and its own.

    Staying alone is what a hospital would train by itself, and its nearest neighbours.

    Example: munkey-sim hospitals --data cells.npz --encoder squeezenet1_0 --weights squeezenet1_0.pth
    """
    share = parse_share(forget)
    if output is not None and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise InvalidSetting(f"--output {output}: must be a file in a folder that is there")
    overrides = given_settings(
        setting, guarantee=guarantee and guarantee.value, encoder=encoder, encoder_weights=weights
    )
    found: list[Gains] = []
    digests: dict[str, list[str]] = {}
    with Progress.quiet() if as_json else Progress(Console(stderr=True)) as progress:
        sets = [load_encoded(name, overrides, data_dir, progress) for name in data]
        questions = [
            [
                Question(one.settings, hospitals, unlike, 0.0, share, RandomRecords.name, Budget(1))
                for unlike in alpha or _ALPHAS
            ]
            for one in sets
        ]
        numbers = [sets[0].settings.seed + number for number in range(seeds)]
        for encoded, asked in zip(sets, questions, strict=True):
            found += _run(encoded, asked, numbers, cores or usable_cores(), progress)
            digests[encoded.name] = divisions_digests(encoded.settings, asked[0], encoded.images)
    document = finite_only(
        {
            **preamble("hospitals", command_line.typed(), sets[0].settings),
            "question": {
                **describe_question(questions[0][0]),
                "seeds": numbers,
                "alpha": [str(one) for one in alpha or _ALPHAS],
            },
            "sets": [{**one.describe(), "digests": sorted(set(digests[one.name]))} for one in sets],
            "results": [one.to_json() for one in found],
        }
    )
    if output is not None:
        output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if as_json:
        command_line.print_json(document)
        return
    for one in found:
        command_line.print_table(_table(one))
    for name, others in digests.items():
        mine = [division for one in found if one.data == name for division in one.divisions]
        sys.stdout.write(f"{name}: {_bytes_sentence({*others, *(one.digest for one in mine)}, mine)}\n")


def _run(
    encoded: EncodedSet, questions: list[Question], seeds: list[int], cores: int, progress: Progress
) -> list[Gains]:
    tasks = [(place, seed) for place in range(len(questions)) for seed in seeds]
    done: dict[tuple[int, int], Division] = {}
    with progress.counting(f"hospitals of {encoded.name}", len(tasks)) as count:

        def keep(task: tuple[int, int], division: Division) -> None:
            done[task] = division
            count(1)

        run_tasks(
            compare_hospitals,
            tasks,
            lambda task: (questions[task[0]], encoded.images, task[1]),
            cores=cores,
            done=keep,
        )
    return [
        Gains(encoded.name, question.alpha, [done[place, seed] for seed in seeds])
        for place, question in enumerate(questions)
    ]


def _table(gains: Gains) -> Table:
    over = f"mean of {len(gains.divisions)} seeds ± 95% interval"
    table = Table(title=f"{gains.data}, alpha = {gains.alpha:g}, {over}", title_justify="left")
    for heading in ("case mix", "model"):
        table.add_column(heading, no_wrap=True)
    for heading in (*_COLUMNS.values(), "federated minus it", "worst hospital", f"lose over {LOSES:g} point %"):
        table.add_column(heading, justify="right")
    for mix in MIXES:
        for model in (FEDERATED, ALONE, NEIGHBOURS, BETTER):
            figures = ["" if model == BETTER else _figure(gains, mix, model, figure) for figure in _COLUMNS]
            against = ["", "", ""] if model == FEDERATED else _against(gains, mix, model)
            table.add_row(mix, model, *figures, *against, end_section=model == BETTER)
    return table


def _figure(gains: Gains, mix: str, model: str, figure: str) -> str:
    return gains.mean(mix, model, figure).text(2 if figure == "loss" else 1)


def _against(gains: Gains, mix: str, model: str) -> list[str]:
    every = gains.every_gain(mix, model)
    return [str(gains.gain(mix, model)), f"{min(every):.1f}", f"{share_that_loses(every):.0f}"]


def _bytes_sentence(digests: set[str], divisions: list[Division]) -> str:
    same = "the same bytes" if len(digests) == 1 and all(digests) else "other bytes"
    erased = sum(division.identical == 1 for division in divisions)
    return (
        f"shared weights have {same} where the records are divided and ordered otherwise; after {erased} of "
        f"{len(divisions)} deletions weights and tokens are those of a federation that never had the records"
    )
