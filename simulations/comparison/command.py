"""`munkey-sim compare`: every way to forget on some data sets."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from common import command_line
from common.errors import InvalidSetting
from common.options import EncoderOption, JsonOption, SettingOption, WeightsOption
from common.settings_text import given_settings
from simulations.comparison.cell import Outcome
from simulations.comparison.document import comparison_document
from simulations.comparison.findings import COLUMNS, SetFindings
from simulations.comparison.jobs import Job, run_jobs
from simulations.comparison.kept_cells import KeptCells
from simulations.consent import parse_share
from simulations.encoded_set import EncodedSet, load_encoded
from simulations.json_values import settings_values
from simulations.machine import PACKAGES, describe_versions, usable_cores
from simulations.options import (
    AlphaOption,
    BudgetOption,
    DataDirOption,
    ForgetOption,
    HospitalsOption,
    PermanentOption,
    SeedsOption,
)
from simulations.progress import Progress
from simulations.question import Question
from simulations.reporting.files import write_report
from simulations.sources import load_dataset
from simulations.unlearning.method import Budget
from simulations.unlearning.registry import METHODS

_FORGET_SET = "random+canaries"
_QUICK_SEEDS = 2
_FEATURES_ONLY = 0.02
"""How long a cell takes that trains few weights on frozen features, against one that trains a transformer."""


def compare(
    data: Annotated[
        list[str], typer.Option(help="digits, a MedMNIST-layout .npz by path, or a MedMNIST name. Repeatable.")
    ],
    hospitals: HospitalsOption = 5,
    seeds: SeedsOption = 5,
    forget: ForgetOption = "10%",
    permanent: PermanentOption = "30%",
    epsilon: Annotated[
        list[float] | None, typer.Option(help="Budget of certified: once for all data sets, or once for each.")
    ] = None,
    method: Annotated[list[str] | None, typer.Option(help="Only this method. Repeatable.")] = None,
    without: Annotated[list[str] | None, typer.Option(help="Leave this method out. Repeatable.")] = None,
    budget: BudgetOption = 2,
    quick: Annotated[bool, typer.Option("--quick", help="The first data set only, with 2 seeds.")] = False,
    alpha: AlphaOption = float("inf"),
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
    """Compare MUNKEY's guarantees with nine other ways to forget, and write a report.

    Example: munkey-sim compare --data cells.npz --encoder squeezenet1_0 --weights squeezenet1_0.pth --seeds 5
    """
    budgets = _one_for_each(epsilon or [], data)
    if quick:
        data, budgets, seeds = data[:1], budgets[:1], min(seeds, _QUICK_SEEDS)
    methods = _chosen(method, without)
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
        asked = [
            Question(one.settings, hospitals, alpha, shares[1], shares[0], _FORGET_SET, Budget(budget)) for one in sets
        ]
        numbers = [sets[0].settings.seed + number for number in range(seeds)]
        # What cannot be asked for is refused before anything is trained.
        canaries = [
            [_canaries(question, one, seed) for seed in numbers] for one, question in zip(sets, asked, strict=True)
        ]
        cells = _Cells(sets, asked, methods, KeptCells(output / "cells"))
        findings = cells.run(numbers, cores or usable_cores(), progress)
    document = comparison_document(
        list(zip(sets, findings, strict=True)),
        asked[0],
        canaries=sum(counts[0] for counts in canaries),
        command=command_line.typed(),
        seeds=numbers,
        finished=cells.finished,
        total=cells.total,
    )
    paths = write_report(document, output)
    if as_json:
        command_line.print_json(document)
        return
    for found in findings:
        command_line.print_table(_table(found))
    sys.stdout.write("\n".join([*document["findings"], f"report: {paths['html']}"]) + "\n")


@dataclass
class _Cells:
    """All cells of a comparison: those that are kept are read, the others run."""

    sets: Sequence[EncodedSet]
    questions: Sequence[Question]
    methods: Sequence[str]
    kept: KeptCells
    finished: int = 0
    total: int = 0

    def run(self, seeds: Sequence[int], cores: int, progress: Progress) -> list[SetFindings]:
        """Return what was found on each data set."""
        families = [tuple(names) for _, names in groupby(self.methods, key=lambda name: METHODS[name].family.name)]
        jobs = [
            Job(one.name, question, names, seed, _weight(one, names))
            for one, question in zip(self.sets, self.questions, strict=True)
            for names in families
            for seed in seeds
        ]
        outcomes: dict[str, list[Outcome]] = {one.name: [] for one in self.sets}
        left = []
        for job in jobs:
            kept = self.kept.read(self._key(job))
            if kept is None:
                left.append(job)
            else:
                outcomes[job.data].extend(kept)
        self.total, self.finished = len(jobs), len(jobs) - len(left)

        with progress.counting("comparing", len(jobs)) as count:
            count(self.finished)

            def done(job: Job, found: list[Outcome]) -> None:
                self.kept.keep(self._key(job), found)
                outcomes[job.data].extend(found)
                self.finished += 1
                count(1)

            run_jobs(left, {one.name: one.images for one in self.sets}, cores=cores, done=done)
        return [SetFindings(one.name, outcomes[one.name]) for one in self.sets]

    def _key(self, job: Job) -> dict[str, Any]:
        """Return everything that a cell's outcomes depend on."""
        (described,) = (one.describe() for one in self.sets if one.name == job.data)
        question = job.question
        return {
            "data": described,
            # The data set's description says which weights the encoder has, wherever their file lies.
            "settings": settings_values(question.settings.replace(seed=job.seed, encoder_weights="")),
            "question": [
                question.hospitals,
                str(question.alpha),
                question.permanent,
                question.forget,
                question.forget_set,
                question.budget.rounds,
            ],
            "family": METHODS[job.methods[0]].family.name,
            "methods": list(job.methods),
            "seed": job.seed,
            "versions": describe_versions(PACKAGES),
        }


def _weight(encoded: EncodedSet, methods: Sequence[str]) -> float:
    light = all(name.startswith(("munkey-", "nearest-")) for name in methods)
    return len(encoded.images.records) * (_FEATURES_ONLY if light else len(methods))


def _chosen(asked: Sequence[str] | None, left_out: Sequence[str] | None) -> list[str]:
    for option, names in (("--method", asked), ("--without", left_out)):
        unknown = next((name for name in names or [] if name not in METHODS), None)
        if unknown is not None:
            raise InvalidSetting(f"{option} {unknown}: is unknown; choose from {', '.join(METHODS)}")
    chosen = [name for name in METHODS if (not asked or name in asked) and name not in (left_out or [])]
    if not chosen:
        raise InvalidSetting(f"--without {' --without '.join(left_out or [])}: leaves no method; leave out fewer")
    # One cell holds all methods of a family, which are then trained once.
    families = list(dict.fromkeys(METHODS[name].family.name for name in chosen))
    return sorted(chosen, key=lambda name: families.index(METHODS[name].family.name))


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


def _canaries(question: Question, encoded: EncodedSet, seed: int) -> int:
    """Return how many records with a wrong label a case has; raise what would be wrong with it."""
    return sum(map(len, question.case(encoded.images, seed).canaries.values()))


def _refuse_same_names(sets: Sequence[EncodedSet]) -> None:
    names = [one.name for one in sets]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidSetting(f"--data {twice}: two data sets have this name; rename a file or leave one out")


def _table(found: SetFindings) -> Table:
    seeds = len({outcome.seed for outcome in found.outcomes})
    table = Table(title=f"{found.data}, mean of {seeds} seeds ± 95% interval", title_justify="left")
    table.add_column("method", no_wrap=True)
    for column in COLUMNS:
        table.add_column(column.name, justify="right")
    for name in found.methods:
        cells = [found.interval(name, column.name).text(column.digits) for column in COLUMNS]
        table.add_row(METHODS[name].title, *cells)
    return table
