"""What `munkey-sim run` compares its federation with: families of `simulations/unlearning`, each trained by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.model.metrics import accuracy, macro_f1
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.answers import common_answers
from fedmunkey.simulations.federation.hospitals import Encoded, Hospital
from fedmunkey.simulations.federation.measurement import Measurement, measure, own_mix_accuracy
from fedmunkey.simulations.programs.worker_processes import run_tasks
from fedmunkey.simulations.unlearning.alone import AloneFamily
from fedmunkey.simulations.unlearning.method import Family
from fedmunkey.simulations.unlearning.munkey import munkey_family
from fedmunkey.simulations.unlearning.nearest_neighbours import NeighbourFamily
from fedmunkey.simulations.unlearning.plain_federation import PlainFamily


class Baseline(StrEnum):
    """What a simulation can be compared with."""

    ORACLE = "oracle"
    PLAIN_VIT = "plain-vit"
    NEIGHBOURS = "neighbours"
    ALONE = "alone"

    def family(self, settings: Settings) -> Family[Any]:
        """Return what is trained: on all records, save for the oracle, which never sees what was forgotten."""
        match self:
            case Baseline.ORACLE:
                return munkey_family(settings.guarantee)
            case Baseline.PLAIN_VIT:
                return PlainFamily()
            case Baseline.NEIGHBOURS:
                return NeighbourFamily()
            case Baseline.ALONE:
                return AloneFamily()


@dataclass(frozen=True)
class BaselineResult:
    """What a baseline reached.

    Training takes seconds with one thread. Accuracy and F1 are means over hospitals, in percent; the `own` ones are for
    each hospital's own case mix. Single hospitals' accuracies the oracle has not; only it has a measurement.
    """

    name: Baseline
    seconds: float
    test_accuracy: float
    own_accuracy: float
    test_macro_f1: float
    per_hospital: dict[str, float]
    own_per_hospital: dict[str, float]
    measurement: Measurement | None = None


@dataclass(frozen=True)
class Comparison:
    """What every baseline is given: for each hospital all that it began with, and positions of what was forgotten."""

    hospitals: Sequence[Hospital]
    forgotten: Mapping[str, NDArray[np.int64]]
    settings: Settings
    shape: ModelShape

    def train_records(self, hospital: Hospital, *, without_forgotten: bool = False) -> Encoded:
        """Return a hospital's training records."""
        train = hospital.given.records.splits == Split.TRAIN.value
        if without_forgotten:
            train = train.copy()
            train[self.forgotten[hospital.name]] = False
        return hospital.given.select(train)


def run_baselines(
    names: Sequence[Baseline],
    comparison: Comparison,
    *,
    processes: int,
    done: Callable[[Baseline], None] = lambda _: None,
) -> dict[Baseline, BaselineResult]:
    """Run baselines, as many at a time as there are processes, and return their results in the order of `names`."""
    results: dict[Baseline, BaselineResult] = {}

    def note(name: Baseline, result: BaselineResult) -> None:
        results[name] = result
        done(name)

    run_tasks(run_baseline, names, lambda name: (name, comparison), cores=processes, done=note)
    return {name: results[name] for name in names}


def run_baseline(name: Baseline, comparison: Comparison) -> BaselineResult:
    """Run one baseline in this process, with one thread."""
    torch.set_num_threads(1)
    hospitals, oracle = comparison.hospitals, name is Baseline.ORACLE
    records = {h.name: comparison.train_records(h, without_forgotten=oracle) for h in hospitals}
    start = time.perf_counter()
    trained = name.family(comparison.settings).train(records, comparison.settings, comparison.shape)
    seconds = time.perf_counter() - start
    if oracle:
        found = measure(trained, hospitals, comparison.forgotten, comparison.forgotten)
        means = found.test_accuracy, found.own_accuracy, found.test_macro_f1
        return BaselineResult(name, seconds, *means, {}, {}, found)
    common, own, f1s = {}, {}, []
    for hospital in hospitals:
        test, train = hospital.test, records[hospital.name]
        said, labels = common_answers(trained, hospital.name, test), torch.from_numpy(test.records.labels)
        common[hospital.name] = 100 * accuracy(said, labels)
        own[hospital.name] = 100 * own_mix_accuracy(trained.answer(hospital.name, test), test, train)
        f1s.append(100 * macro_f1(said, labels))
    means = _mean(common.values()), _mean(own.values()), _mean(f1s)
    return BaselineResult(name, seconds, *means, common, own)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
