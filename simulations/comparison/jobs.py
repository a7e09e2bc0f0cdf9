"""The searches and cells of a comparison: those that are kept are read, the others run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Protocol, TypeVar

from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import Settings
from fedmunkey.common.settings.settings_text import ConfigValue
from fedmunkey.simulations.comparison.cell import run_cell
from fedmunkey.simulations.comparison.findings import SetFindings
from fedmunkey.simulations.comparison.kept_cells import KeptCells
from fedmunkey.simulations.comparison.presets import Preset
from fedmunkey.simulations.comparison.search import Searched, search
from fedmunkey.simulations.federation.encoded_set import EncodedSet
from fedmunkey.simulations.forget_sets.question import Question, describe_question
from fedmunkey.simulations.programs.json_values import settings_values
from fedmunkey.simulations.programs.machine import PACKAGES, describe_versions
from fedmunkey.simulations.programs.progress import Progress
from fedmunkey.simulations.programs.worker_processes import run_tasks
from fedmunkey.simulations.unlearning.method import Method
from fedmunkey.simulations.unlearning.munkey import MunkeyFamily
from fedmunkey.simulations.unlearning.plain_federation import LinearFamily, PlainFamily
from fedmunkey.simulations.unlearning.sisa import SisaFamily

_FEATURES_ONLY = 0.02
"""How long a cell takes that trains few weights on frozen features, against one that trains a transformer."""


@dataclass(frozen=True)
class Contest:
    """One data set with one question: what one table of a comparison is about. The label names it."""

    label: str
    encoded: EncodedSet
    question: Question


def contests_of(asked: Sequence[tuple[EncodedSet, Question]]) -> list[Contest]:
    """Return a contest for each pair; the label is the data set's name and, where they differ, what is forgotten."""
    questions = [question for _, question in asked]
    several = {name: len({getattr(one, name) for one in questions}) > 1 for name in ("alpha", "forget_set")}

    def label(encoded: EncodedSet, question: Question) -> str:
        """Name one."""
        words = [encoded.name]
        if several["forget_set"]:
            words.append(describe_question(question)["forget_set"]["title"])
        if several["alpha"]:
            words.append(f"alpha = {question.alpha:g}")
        return ", ".join(words)

    return [Contest(label(encoded, question), encoded, question) for encoded, question in asked]


@dataclass(frozen=True)
class Job:
    """One cell: the methods of one family in one contest with one seed.

    `values` are settings that a search has chosen for the family, and the methods have the numbers that it chose for
    them, by name in `numbers`.
    """

    contest: Contest
    methods: tuple[Method[Any], ...]
    seed: int
    values: Mapping[str, ConfigValue] = field(default_factory=dict)
    numbers: Mapping[str, Mapping[str, ConfigValue]] = field(default_factory=dict)

    @property
    def weight(self) -> float:
        """How long it takes, in any unit: heavy ones are begun first."""
        family = self.methods[0].family
        heavy = (isinstance(family, PlainFamily | SisaFamily) and not isinstance(family, LinearFamily)) or (
            isinstance(family, MunkeyFamily) and family.guarantee is Guarantee.EMPIRICAL
        )
        return len(self.contest.encoded.images.records) * (len(self.methods) if heavy else _FEATURES_ONLY)

    def key(self) -> dict[str, Any]:
        """Return everything that its outcomes depend on."""
        question = self.contest.question
        return {
            "data": self.contest.encoded.describe(),
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
            "values": dict(self.values),
            "numbers": {name: dict(numbers) for name, numbers in self.numbers.items()},
            "seed": self.seed,
            "versions": describe_versions(PACKAGES),
        }


@dataclass(frozen=True)
class Search:
    """The search for the settings of a job's family and methods, which its seed is not used for."""

    job: Job
    tries: int

    @property
    def weight(self) -> float:
        """How long it takes, as a job's."""
        return self.job.weight * self.tries

    def key(self) -> dict[str, Any]:
        """Return everything that its outcomes depend on."""
        job = self.job
        choices = {
            job.methods[0].family.name: [dict(one) for one in job.methods[0].family.choices],
            **{method.name: [dict(one) for one in method.choices] for method in job.methods},
        }
        return {**job.key(), "search": self.tries, "choices": choices}


def all_jobs(contests: Iterable[Contest], preset: Preset, methods: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    """Return the cells of a comparison; `methods` are names in an order that keeps families together."""
    families = [
        tuple(group)
        for _, group in groupby((preset.methods[name] for name in methods), key=lambda method: method.family.name)
    ]
    return [
        Job(replace(contest, question=_asked(contest.question, preset, family)), family, seed)
        for contest in contests
        for family in families
        for seed in seeds
    ]


def _asked(question: Question, preset: Preset, family: Sequence[Method[Any]]) -> Question:
    changes = preset.changes.get(family[0].name)
    return question.with_settings(Settings.parse({**question.settings.to_config(), **changes})) if changes else question


def run_searches(
    jobs: Sequence[Job], tries: int, kept: KeptCells[Searched], cores: int, progress: Progress
) -> dict[str, list[Searched]]:
    """Read or run the search of every family in every contest; return what was tried, by contest."""
    firsts = {(job.contest.label, job.methods[0].family.name): job for job in reversed(jobs)}
    searches = [Search(job, tries) for job in reversed(firsts.values())]
    found: dict[str, list[Searched]] = {job.contest.label: [] for job in jobs}

    def take(one: Search, tried: list[Searched]) -> None:
        found[one.job.contest.label].extend(tried)

    if tries > 1:
        _run(
            "searching",
            searches,
            kept,
            search,
            lambda one: (
                one.job.contest.question,
                one.job.contest.encoded.images,
                one.job.methods,
                one.job.seed,
                tries,
            ),
            take,
            cores=cores,
            progress=progress,
        )
    return found


def with_chosen(jobs: Iterable[Job], searched: Mapping[str, Sequence[Searched]]) -> list[Job]:
    """Return jobs whose families and methods have the settings that were chosen for them."""
    chosen = []
    for job in jobs:
        best = {(one.name, one.learning): one.chosen.values for one in searched[job.contest.label]}
        numbers = {one.name: best[one.name, False] for one in job.methods if best.get((one.name, False))}
        methods = tuple(method.chosen(numbers.get(method.name, {})) for method in job.methods)
        chosen.append(
            replace(job, methods=methods, values=best.get((job.methods[0].family.name, True), {}), numbers=numbers)
        )
    return chosen


def run_jobs(
    jobs: Sequence[Job], preset: Preset, kept: KeptCells[Any], cores: int, progress: Progress
) -> list[SetFindings]:
    """Read or run every cell, keep what ran, and return what was found in each contest."""
    outcomes: dict[str, list[Any]] = {job.contest.label: [] for job in jobs}
    _run(
        "comparing",
        jobs,
        kept,
        run_cell,
        lambda job: (job.contest.question, job.contest.encoded.images, job.methods, job.seed, job.values),
        lambda job, found: outcomes[job.contest.label].extend(found),
        cores=cores,
        progress=progress,
    )
    return [SetFindings(name, found, preset.methods) for name, found in outcomes.items()]


class _Keyed(Protocol):
    @property
    def weight(self) -> float:
        """How long it takes."""

    def key(self) -> dict[str, Any]:
        """Return what its result depends on."""


_Task = TypeVar("_Task", bound=_Keyed)


def _run(
    words: str,
    tasks: Sequence[_Task],
    kept: KeptCells[Any],
    work: Any,
    arguments: Any,
    take: Any,
    *,
    cores: int,
    progress: Progress,
) -> None:
    """Read what is kept of tasks, run the others and keep what they came to; give each result to `take`."""
    left = []
    for task in tasks:
        found = kept.read(task.key())
        if found is None:
            left.append(task)
        else:
            take(task, found)
    with progress.counting(words, len(tasks)) as count:
        count(len(tasks) - len(left))

        def done(task: _Task, found: list[Any]) -> None:
            kept.keep(task.key(), found)
            take(task, found)
            count(1)

        run_tasks(work, sorted(left, key=lambda task: -task.weight), arguments, cores=cores, done=done)
