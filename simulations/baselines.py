"""What a federation is compared with: each baseline is one function here, and runs in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray

from client.dataset import Split
from client.evaluation import evaluate, neighbour_votes
from common.metrics import accuracy, macro_f1
from common.model import ModelShape
from common.randomness import derive_seed
from common.recipe import Recipe
from common.settings import Settings
from simulations.answers import HospitalBank, MunkeyAnswers
from simulations.federated_loop import average_rounds, learn
from simulations.hospitals import Encoded, Hospital, bank_of, held_out_of
from simulations.measurement import Measurement, measure
from simulations.plain_vit import PlainViT, plain_site
from simulations.worker_processes import worker_processes


class Baseline(StrEnum):
    """What a simulation can be compared with."""

    ORACLE = "oracle"
    PLAIN_VIT = "plain-vit"
    NEIGHBOURS = "neighbours"
    ALONE = "alone"


@dataclass(frozen=True)
class BaselineResult:
    """What a baseline reached.

    Attributes
    ----------
    name : Baseline
        Which one.
    seconds : float
        Training time, with one thread.
    test_accuracy, test_macro_f1 : float
        Mean over hospitals, in percent.
    per_hospital : dict
        Each hospital's test accuracy, in percent.
    measurement : Measurement or None
        The oracle's TA, RA, FA and MIA.
    """

    name: Baseline
    seconds: float
    test_accuracy: float
    test_macro_f1: float
    per_hospital: dict[str, float]
    measurement: Measurement | None = None


@dataclass(frozen=True)
class Comparison:
    """What every baseline is given.

    Attributes
    ----------
    hospitals : sequence of Hospital
        With the records that they began with.
    forgotten : mapping
        For each hospital, positions of the records that the federation forgot.
    settings : Settings
        The federation's.
    shape : ModelShape
        Of its model.
    """

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
    names: Sequence[Baseline], comparison: Comparison, *, processes: int, done: Callable[[Baseline], None] | None = None
) -> dict[Baseline, BaselineResult]:
    """Run baselines, as many at a time as there are processes, and return their results in the order of `names`."""
    results: dict[Baseline, BaselineResult] = {}
    if not names:
        return results
    with worker_processes(min(processes, len(names))) as pool:
        running = {pool.submit(run_baseline, name, comparison): name for name in names}
        for future in as_completed(running):
            results[running[future]] = future.result()
            if done is not None:
                done(running[future])
    return {name: results[name] for name in names}


def run_baseline(name: Baseline, comparison: Comparison) -> BaselineResult:
    """Run one baseline in this process, with one thread."""
    torch.set_num_threads(1)
    return _BASELINES[name](comparison)


def _oracle(comparison: Comparison) -> BaselineResult:
    """Train the same federation from the same first weights, without the forgotten records."""
    settings, shape = comparison.settings, comparison.shape
    kept = {h.name: comparison.train_records(h, without_forgotten=True) for h in comparison.hospitals}
    start = time.perf_counter()
    learned = learn(kept, settings, shape)
    seconds = time.perf_counter() - start
    places = {name: HospitalBank(bank, kept[name].encoding.keys) for name, bank in learned.banks.items()}
    answers = MunkeyAnswers(learned.model, places, settings)
    found = measure(answers, comparison.hospitals, comparison.forgotten, comparison.forgotten)
    return BaselineResult(Baseline.ORACLE, seconds, found.test_accuracy, found.test_macro_f1, {}, found)


def _plain_vit(comparison: Comparison) -> BaselineResult:
    """Federated averaging of the same transformer without a memory, on all records."""
    settings, shape = comparison.settings, comparison.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(settings.seed, "plain vit"))
        model = PlainViT(shape)
    train = {h.name: comparison.train_records(h) for h in comparison.hospitals}
    start = time.perf_counter()
    sites = [
        plain_site(name, records.inputs(shape), torch.from_numpy(records.records.labels), settings)
        for name, records in train.items()
    ]
    model = average_rounds(model, sites, settings.num_rounds)
    seconds = time.perf_counter() - start
    tests = {h.name: h.given.split(Split.TEST) for h in comparison.hospitals}
    with torch.inference_mode():
        answers = {
            name: (model(test.inputs(shape)).softmax(1), torch.from_numpy(test.records.labels))
            for name, test in tests.items()
        }
    return _result(Baseline.PLAIN_VIT, seconds, answers)


def _neighbours(comparison: Comparison) -> BaselineResult:
    """Let the labels of each hospital's K nearest keys vote, without any model."""
    settings, shape = comparison.settings, comparison.shape
    neighbours = Recipe.of(settings).neighbours
    start = time.perf_counter()
    answers = {}
    for hospital in comparison.hospitals:
        train, test = comparison.train_records(hospital), hospital.given.split(Split.TEST)
        held_out = held_out_of(test, train, settings, shape)
        votes = neighbour_votes(bank_of(train, settings, shape), held_out.lists, neighbours, settings.num_classes)
        answers[hospital.name] = votes, held_out.labels
    return _result(Baseline.NEIGHBOURS, time.perf_counter() - start, answers)


def _alone(comparison: Comparison) -> BaselineResult:
    """Train a MUNKEY model at each hospital by itself, for as many rounds."""
    settings, shape = comparison.settings, comparison.shape
    start = time.perf_counter()
    accuracies, f1s = {}, []
    for hospital in comparison.hospitals:
        train = comparison.train_records(hospital)
        learned = learn({hospital.name: train}, settings, shape)
        held_out = held_out_of(hospital.given.split(Split.TEST), train, settings, shape)
        found = evaluate(learned.model, learned.banks[hospital.name], held_out, Recipe.of(settings).reading)
        accuracies[hospital.name] = 100 * found.accuracy
        f1s.append(100 * found.macro_f1)
    seconds = time.perf_counter() - start
    mean = float(np.mean(list(accuracies.values())))
    return BaselineResult(Baseline.ALONE, seconds, mean, float(np.mean(f1s)), accuracies)


def _result(name: Baseline, seconds: float, answers: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> BaselineResult:
    accuracies = {site: 100 * accuracy(*answer) for site, answer in answers.items()}
    mean = float(np.mean(list(accuracies.values())))
    return BaselineResult(
        name, seconds, mean, 100 * float(np.mean([macro_f1(*answer) for answer in answers.values()])), accuracies
    )


_BASELINES: dict[Baseline, Callable[[Comparison], BaselineResult]] = {
    Baseline.ORACLE: _oracle,
    Baseline.PLAIN_VIT: _plain_vit,
    Baseline.NEIGHBOURS: _neighbours,
    Baseline.ALONE: _alone,
}
