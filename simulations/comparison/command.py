"""`munkey-sim compare`: every way to forget on some data sets."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.options import EncoderOption, JsonOption, SettingOption, WeightsOption
from fedmunkey.common.settings.settings_text import given_settings
from fedmunkey.simulations.comparison.cell import Outcome
from fedmunkey.simulations.comparison.document import comparison_document
from fedmunkey.simulations.comparison.findings import Column, SetFindings
from fedmunkey.simulations.comparison.jobs import Contest, all_jobs, contests_of, run_jobs, run_searches, with_chosen
from fedmunkey.simulations.comparison.kept_cells import KeptCells
from fedmunkey.simulations.comparison.presets import PRESETS, Preset
from fedmunkey.simulations.comparison.search import TRIES, Searched
from fedmunkey.simulations.comparison.search_table import search_table
from fedmunkey.simulations.federation.consent import parse_share
from fedmunkey.simulations.federation.division_options import DivideByOption, FeatureShiftOption
from fedmunkey.simulations.federation.encoded_set import EncodedSet, load_encoded
from fedmunkey.simulations.federation.partition import DivideBy
from fedmunkey.simulations.federation.sources import load_dataset
from fedmunkey.simulations.forget_sets.question import Question
from fedmunkey.simulations.forget_sets.registry import FORGET_SETS
from fedmunkey.simulations.programs.machine import usable_cores
from fedmunkey.simulations.programs.options import (
    BudgetOption,
    DataDirOption,
    ForgetOption,
    HospitalsOption,
    SeedsOption,
)
from fedmunkey.simulations.programs.progress import Progress
from fedmunkey.simulations.reporting.files import write_report
from fedmunkey.simulations.unlearning.method import Budget

_QUICK_SEEDS = 2


def compare(
    data: Annotated[
        list[str], typer.Option(help="digits, a MedMNIST-layout .npz by path, or a MedMNIST name. Repeatable.")
    ],
    preset: Annotated[str, typer.Option(help=f"What is compared: {', '.join(PRESETS)}.")] = next(iter(PRESETS)),
    hospitals: HospitalsOption = 5,
    seeds: SeedsOption = 5,
    forget: ForgetOption = "10%",
    permanent: Annotated[str, typer.Option(help="Share of records given for good, for learns-from=permanent.")] = "0%",
    epsilon: Annotated[
        list[float] | None, typer.Option(help="Budget of certified: once for all data sets, or once for each.")
    ] = None,
    method: Annotated[list[str] | None, typer.Option(help="Only this method. Repeatable.")] = None,
    without: Annotated[list[str] | None, typer.Option(help="Leave this method out. Repeatable.")] = None,
    budget: BudgetOption = 2,
    quick: Annotated[bool, typer.Option("--quick", help="The first data set only, with 2 seeds.")] = False,
    alpha: Annotated[
        list[float] | None,
        typer.Option(
            help="How alike hospitals are (Dirichlet, see --divide-by): 0.1 very different, inf (default) the same. "
            "Repeatable: each has tables of its own."
        ),
    ] = None,
    forget_set: Annotated[
        list[str] | None,
        typer.Option(help=f"What is forgotten, {', '.join(FORGET_SETS)}; the preset chooses. Repeatable."),
    ] = None,
    tries: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Settings that each may try on validation data, its paper's among them; 1 searches nothing. "
            f"{TRIES} by default where methods are compared.",
        ),
    ] = None,
    divide_by: DivideByOption = DivideBy.LABELS,
    feature_shift: FeatureShiftOption = 0.0,
    setting: SettingOption = None,
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    data_dir: DataDirOption = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Cells at the same time.")] = None,
    output: Annotated[
        Path, typer.Option(help="Folder for the report and for finished cells, which are not run again.")
    ] = Path("comparison"),
    as_json: JsonOption = False,
) -> None:
    """Compare MUNKEY's guarantees with other ways to forget, with each other, or recipes; and write a report.

    Every method, ours among them, has the best of --tries settings on the validation records of another federation.
    delta is 1 / (10 N) for N training records, unless it is set.

    Example: munkey-sim compare --preset guarantees --data cells.npz --encoder squeezenet1_0 --weights squeezenet1_0.pth
    """
    budgets = _one_for_each(epsilon or [], data)
    if quick:
        data, budgets, seeds = data[:1], budgets[:1], min(seeds, _QUICK_SEEDS)
    if preset not in PRESETS:
        raise InvalidSetting(f"--preset {preset}: is unknown; choose from {', '.join(PRESETS)}")
    asked = PRESETS[preset]
    methods = _chosen(asked, method, without)
    unknown = next((name for name in forget_set or [] if name not in FORGET_SETS), None)
    if unknown is not None:
        raise InvalidSetting(f"--forget-set {unknown}: is unknown; choose from {', '.join(FORGET_SETS)}")
    shares = parse_share(forget), parse_share(permanent)
    _check_output(output)
    overrides = given_settings(setting, encoder=encoder, encoder_weights=weights)
    if "guarantee" in overrides:
        raise InvalidSetting(f"guarantee = {overrides['guarantee']}: all are compared; choose with --method")
    for name in data[1:]:
        # Before minutes are spent on encoding the first one.
        load_dataset(name, data_dir=data_dir, seed=0)
    with Progress.quiet() if as_json else Progress(Console(stderr=True)) as progress:
        sets = [
            load_encoded(name, {**overrides, **({} if bound is None else {"epsilon": bound})}, data_dir, progress)
            for name, bound in zip(data, budgets, strict=True)
        ]
        _refuse_same_names(sets)
        further = Budget(budget), divide_by, feature_shift
        contests = contests_of(
            [
                (one, Question(one.settings, hospitals, unlike, shares[1], shares[0], chosen, *further))
                for one in sets
                for chosen in forget_set or [asked.forget_set]
                for unlike in alpha or [float("inf")]
            ]
        )
        numbers = [sets[0].settings.seed + number for number in range(seeds)]
        # What cannot be asked for is refused before anything is trained.
        canaries = [[_canaries(one, seed) for seed in numbers] for one in contests]
        jobs, folder, workers = all_jobs(contests, asked, methods, numbers), output / "cells", cores or usable_cores()
        searched = run_searches(jobs, tries or asked.tries, KeptCells(folder, Searched), workers, progress)
        findings = run_jobs(with_chosen(jobs, searched), asked, KeptCells(folder, Outcome), workers, progress)
    document = comparison_document(
        list(zip(contests, findings, strict=True)),
        asked,
        searched=searched,
        canaries=sum(counts[0] for counts in canaries),
        command=command_line.typed(),
        seeds=numbers,
        cells=len(jobs),
    )
    paths = write_report(document, output)
    if as_json:
        command_line.print_json(document)
        return
    for found in findings:
        command_line.print_table(_table(found, asked.columns))
    if any(searched.values()):
        command_line.print_table(search_table(searched, asked))
    sys.stdout.write("\n".join([*document["findings"], f"report: {paths['html']}"]) + "\n")


def _chosen(preset: Preset, asked: Sequence[str] | None, left_out: Sequence[str] | None) -> list[str]:
    methods = preset.methods
    for option, names in (("--method", asked), ("--without", left_out)):
        unknown = next((name for name in names or [] if name not in methods), None)
        if unknown is not None:
            raise InvalidSetting(f"{option} {unknown}: is unknown; choose from {_listed(methods)}")
    chosen = [name for name in methods if (not asked or name in asked) and name not in (left_out or [])]
    if not chosen:
        raise InvalidSetting(f"--without {' --without '.join(left_out or [])}: leaves no method; leave out fewer")
    # One cell holds all methods of a family, which are then trained once.
    families = list(dict.fromkeys(methods[name].family.name for name in chosen))
    return sorted(chosen, key=lambda name: families.index(methods[name].family.name))


def _listed(names: Iterable[str]) -> str:
    """Return names, some of which have commas in them, one after the other."""
    return ("; " if any("," in name for name in names) else ", ").join(names)


def _one_for_each(given: Sequence[float], data: Sequence[str]) -> list[float | None]:
    if not given:
        return [None] * len(data)
    if len(given) == 1:
        return [given[0]] * len(data)
    if len(given) != len(data):
        raise InvalidSetting(f"--epsilon is given {len(given)} times for {len(data)} data sets; give it once for each")
    return list(given)


def _check_output(output: Path) -> None:
    place = output.absolute()
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    if not there.is_dir():
        raise InvalidSetting(f"--output {output}: {there} is a file; give a folder")
    if not os.access(there, os.W_OK):
        raise InvalidSetting(f"--output {output}: {there} cannot be written to; give another folder")


def _canaries(contest: Contest, seed: int) -> int:
    """Return how many records with a wrong label a case has; raise what would be wrong with it."""
    return sum(map(len, contest.question.case(contest.encoded.images, seed).canaries.values()))


def _refuse_same_names(sets: Sequence[EncodedSet]) -> None:
    names = [one.name for one in sets]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidSetting(f"--data {twice}: two data sets have this name; rename a file or leave one out")


def _table(found: SetFindings, columns: Sequence[Column]) -> Table:
    seeds = len({outcome.seed for outcome in found.outcomes})
    over = f"mean of {seeds} seeds ± 95% interval" if seeds > 1 else "one seed"
    table = Table(title=f"{found.data}, {over}", title_justify="left")
    table.add_column("method", no_wrap=True)
    for column in columns:
        table.add_column(column.name, justify="right")
    for name in found.methods:
        cells = [found.interval(name, column.name).text(column.digits) for column in columns]
        table.add_row(found.known[name].title, *cells)
    return table
