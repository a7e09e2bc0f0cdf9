"""BCCD blood cells at eight hospitals, a whole smear being one subject."""

from __future__ import annotations

import math
from collections.abc import Iterator

from simulations.bench.figure import Bench, Figure, Goal, Group, Relation, Result
from simulations.bench.medical_images import obstacle, prepare, train_federation
from simulations.bench.timing import torch_threads

_FILE = "bccd_cells_28.npz"
_HOSPITALS = 8
_ROUNDS = 20
_TARGET = Goal(Relation.AT_LEAST, 98.0)
_SPLITS = (
    (
        math.inf,
        Figure("bccd-accuracy", "BCCD, 8 hospitals, even split: test accuracy", "%", _TARGET),
        Figure("bccd-macro-f1", "BCCD, 8 hospitals, even split: macro-F1", "%"),
    ),
    (
        1.0,
        Figure("bccd-accuracy-uneven", "BCCD, 8 hospitals, Dirichlet split, alpha = 1: test accuracy", "%", _TARGET),
        Figure("bccd-macro-f1-uneven", "BCCD, 8 hospitals, Dirichlet split, alpha = 1: macro-F1", "%"),
    ),
)


def _measure(bench: Bench) -> Iterator[Result]:
    """Train one federation for each way of dividing the smears."""
    study = prepare(bench, _FILE, _ROUNDS)
    note = f"mean over hospitals, {study.settings.num_rounds} rounds, 1 seed"
    for alpha, accuracy, macro_f1 in _SPLITS:
        comparison = study.comparison(_HOSPITALS, alpha, study.settings.seed)
        with torch_threads(1), bench.progress.counting("BCCD", study.settings.num_rounds * _HOSPITALS) as count:
            found = train_federation(comparison, count)
        yield bench.result(accuracy, found.accuracy, note, per_hospital=found.per_hospital)
        yield bench.result(macro_f1, found.macro_f1, note)


GROUP = Group("bccd", tuple(figure for _, *pair in _SPLITS for figure in pair), _measure, obstacle(_FILE))
