"""The cells of a comparison that are to be run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fedmunkey.simulations.comparison.cell import Outcome, run_cell
from fedmunkey.simulations.hospitals import Encoded
from fedmunkey.simulations.question import Question
from fedmunkey.simulations.ray_tasks import run_tasks


@dataclass(frozen=True)
class Job:
    """One cell that is to be run.

    Attributes
    ----------
    data : str
        Name of the data set.
    question : Question
        What is asked.
    methods : tuple of str
        Of one family.
    seed : int
        Of the case.
    weight : float
        How long it takes, in any unit: heavy ones are begun first.
    """

    data: str
    question: Question
    methods: tuple[str, ...]
    seed: int
    weight: float


def run_jobs(
    jobs: Sequence[Job],
    sets: Mapping[str, Encoded],
    *,
    cores: int,
    done: Callable[[Job, list[Outcome]], None],
) -> None:
    """Run every job, heavy ones first; `done` is called with each job and its outcomes as they end."""
    run_tasks(
        run_cell,
        sorted(jobs, key=lambda job: -job.weight),
        lambda job: (job.question, sets[job.data], job.methods, job.seed),
        cores=cores,
        done=done,
    )
