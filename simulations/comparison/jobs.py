"""The cells of a comparison: those that are kept are read, the others run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.comparison.cell import Outcome, run_cell
from fedmunkey.simulations.comparison.findings import SetFindings
from fedmunkey.simulations.comparison.kept_cells import KeptCells
from fedmunkey.simulations.comparison.presets import Preset
from fedmunkey.simulations.federation.encoded_set import EncodedSet
from fedmunkey.simulations.forget_sets.question import Question
from fedmunkey.simulations.programs.json_values import settings_values
from fedmunkey.simulations.programs.machine import PACKAGES, describe_versions
from fedmunkey.simulations.programs.progress import Progress
from fedmunkey.simulations.programs.worker_processes import run_tasks
from fedmunkey.simulations.unlearning.method import Method
from fedmunkey.simulations.unlearning.munkey import MunkeyFamily, SolvedFamily
from fedmunkey.simulations.unlearning.nearest_neighbours import NeighbourFamily

_FEATURES_ONLY = 0.02
"""How long a cell takes that trains few weights on frozen features, against one that trains a transformer."""


@dataclass(frozen=True)
class Job:
    """One cell: the methods of one family on one data set with one seed."""

    encoded: EncodedSet
    question: Question
    methods: tuple[Method[Any], ...]
    seed: int

    @property
    def weight(self) -> float:
        """How long it takes, in any unit: heavy ones are begun first."""
        family = self.methods[0].family
        light = isinstance(family, SolvedFamily | NeighbourFamily) or (
            isinstance(family, MunkeyFamily) and family.guarantee is not Guarantee.EMPIRICAL
        )
        return len(self.encoded.images.records) * (_FEATURES_ONLY if light else len(self.methods))

    def key(self) -> dict[str, Any]:
        """Return everything that its outcomes depend on."""
        question = self.question
        return {
            "data": self.encoded.describe(),
            # The data set's description says which weights the encoder has, wherever their file lies.
            "settings": settings_values(question.settings.replace(seed=self.seed, encoder_weights="")),
            "question": [
                question.hospitals,
                str(question.alpha),
                question.permanent,
                question.forget,
                question.forget_set,
                question.budget.rounds,
                question.divide_by.value,
                question.feature_shift,
            ],
            "family": self.methods[0].family.name,
            "methods": [method.name for method in self.methods],
            "seed": self.seed,
            "versions": describe_versions(PACKAGES),
        }


def all_jobs(
    asked: Iterable[tuple[EncodedSet, Question]], preset: Preset, methods: Sequence[str], seeds: Sequence[int]
) -> list[Job]:
    """Return the cells of a comparison; `methods` are names in an order that keeps families together."""
    families = [
        tuple(group)
        for _, group in groupby((preset.methods[name] for name in methods), key=lambda method: method.family.name)
    ]
    return [
        Job(encoded, question.with_settings(_changed(question.settings, preset, family)), family, seed)
        for encoded, question in asked
        for family in families
        for seed in seeds
    ]


def _changed(settings: Settings, preset: Preset, family: Sequence[Method[Any]]) -> Settings:
    changes = preset.changes.get(family[0].name)
    return Settings.parse({**settings.to_config(), **changes}) if changes else settings


def run_jobs(jobs: Sequence[Job], preset: Preset, kept: KeptCells, cores: int, progress: Progress) -> list[SetFindings]:
    """Read or run every cell, keep what ran, and return what was found on each data set."""
    outcomes: dict[str, list[Outcome]] = {job.encoded.name: [] for job in jobs}
    left = []
    for job in jobs:
        found = kept.read(job.key())
        if found is None:
            left.append(job)
        else:
            outcomes[job.encoded.name].extend(found)

    with progress.counting("comparing", len(jobs)) as count:
        count(len(jobs) - len(left))

        def done(job: Job, found: list[Outcome]) -> None:
            kept.keep(job.key(), found)
            outcomes[job.encoded.name].extend(found)
            count(1)

        run_tasks(
            run_cell,
            sorted(left, key=lambda job: -job.weight),
            lambda job: (job.question, job.encoded.images, job.methods, job.seed),
            cores=cores,
            done=done,
        )
    return [SetFindings(name, found, preset.methods) for name, found in outcomes.items()]
