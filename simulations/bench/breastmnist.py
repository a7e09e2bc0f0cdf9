"""BreastMNIST at five hospitals: the federation against nearest neighbours and against each hospital alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from simulations.baselines import Baseline, Comparison, run_baseline
from simulations.bench.figure import Bench, Figure, Goal, Group, Relation, Result
from simulations.bench.medical_images import obstacle, prepare, train_federation
from simulations.bench.timing import torch_threads

_FILE = "breastmnist.npz"
_HOSPITALS = 5
_ROUNDS = 20
_SEEDS = 3


@dataclass(frozen=True)
class _Split:
    """How records are divided among the hospitals, and the figures measured on that."""

    alpha: float
    accuracy: Figure
    over_neighbours: Figure
    over_alone: Figure

    @classmethod
    def name(cls, alpha: float, suffix: str, how: str, *, targets: bool) -> _Split:
        """Name the three figures of one way of dividing."""
        neighbours = Goal(Relation.AT_LEAST, 3.0) if targets else None
        alone = Goal(Relation.ABOVE, 0.0) if targets else None
        of = f"BreastMNIST, {_HOSPITALS} hospitals, {how}: test accuracy"
        return cls(
            alpha,
            Figure(f"breastmnist-accuracy{suffix}", of, "%"),
            Figure(f"breastmnist-over-neighbours{suffix}", f"{of} over nearest neighbours'", "points", neighbours),
            Figure(f"breastmnist-over-alone{suffix}", f"{of} over the best hospital's alone", "points", alone),
        )

    @property
    def figures(self) -> tuple[Figure, Figure, Figure]:
        """All three."""
        return self.accuracy, self.over_neighbours, self.over_alone


_SPLITS = (
    _Split.name(math.inf, "", "even split", targets=True),
    _Split.name(1.0, "-uneven", "Dirichlet split, alpha = 1", targets=False),
)


def _measure(bench: Bench) -> Iterator[Result]:
    """Average over seeds; every seed divides the records and starts the weights anew."""
    study = prepare(bench, _FILE, _ROUNDS)
    seeds = range(1 if bench.quick else _SEEDS)
    steps = study.settings.num_rounds * _HOSPITALS + 1
    for split in _SPLITS:
        with torch_threads(1), bench.progress.counting("BreastMNIST", steps * len(seeds)) as count:
            found = [_compare(study.comparison(_HOSPITALS, split.alpha, seed), count) for seed in seeds]
        federated, neighbours, alone, best = np.array(found).T
        details = {
            "federation": federated.tolist(),
            "nearest_neighbours": neighbours.tolist(),
            "alone_mean": alone.tolist(),
            "alone_best_hospital": best.tolist(),
        }
        note = f"mean over hospitals and {len(seeds)} seeds, {study.settings.num_rounds} rounds"
        yield bench.result(split.accuracy, federated.mean(), note, **details)
        yield bench.result(split.over_neighbours, (federated - neighbours).mean(), note)
        yield bench.result(split.over_alone, (federated - best).mean(), note)


def _compare(comparison: Comparison, count: Callable[[int], None]) -> tuple[float, float, float, float]:
    """Return accuracies of the federation, of neighbours, and of hospitals alone: their mean and the best one's."""
    federated = train_federation(comparison, count)
    neighbours = run_baseline(Baseline.NEIGHBOURS, comparison)
    alone = run_baseline(Baseline.ALONE, comparison)
    count(1)
    return federated.accuracy, neighbours.test_accuracy, alone.test_accuracy, max(alone.per_hospital.values())


GROUP = Group("breastmnist", tuple(f for split in _SPLITS for f in split.figures), _measure, obstacle(_FILE))
