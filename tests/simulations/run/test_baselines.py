"""What a federation is compared with sees what it should see, and no more."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation import federated_loop
from fedmunkey.simulations.federation.federated_loop import LocalTraining, average_rounds
from fedmunkey.simulations.federation.hospitals import Hospital
from fedmunkey.simulations.programs import worker_processes
from fedmunkey.simulations.run.baselines import Baseline, Comparison, run_baseline, run_baselines
from fedmunkey.simulations.unlearning import plain_federation as plain_vit
from tests.simulations.given_records import spoil, train_rows

Rows = dict[str, NDArray[np.int64]]


@pytest.fixture
def forgotten(hospitals: list[Hospital]) -> Rows:
    """Every third training record of each hospital."""
    return {h.name: train_rows(h)[::3] for h in hospitals}


@pytest.fixture
def comparison(hospitals: list[Hospital], settings: Settings, shape: ModelShape, forgotten: Rows) -> Comparison:
    return Comparison(hospitals, forgotten, settings, shape)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """Collect the weights of every model that a baseline trains."""
    models: list[dict[str, Tensor]] = []

    def collect(model: nn.Module, sites: Sequence[LocalTraining[Any]], num_rounds: int, **more: Any) -> nn.Module:
        average_rounds(model, sites, num_rounds, **more)
        models.append(model.state_dict())
        return model

    for module in (plain_vit, federated_loop):
        monkeypatch.setattr(module, "average_rounds", collect)
    return models


def poisoned(comparison: Comparison, rows: Mapping[str, NDArray[np.int64]]) -> Comparison:
    spoiled = [spoil(h, rows[h.name]) if h.name in rows else h for h in comparison.hospitals]
    return dataclasses.replace(comparison, hospitals=spoiled)


def same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


def test_oracle_never_sees_what_was_forgotten(
    comparison: Comparison, forgotten: Rows, trained: list[dict[str, Tensor]]
) -> None:
    run_baseline(Baseline.ORACLE, comparison)
    run_baseline(Baseline.ORACLE, poisoned(comparison, forgotten))
    run_baseline(Baseline.ORACLE, poisoned(comparison, {"hospital-1": forgotten["hospital-1"] + 1}))

    clean, spoiled, others_spoiled = trained
    assert same(clean, spoiled)
    # The same poison in records that stay does change it.
    assert not same(clean, others_spoiled)


def test_oracle_is_asked_about_what_was_forgotten_and_is_the_same_for_a_seed(
    comparison: Comparison, forgotten: Rows
) -> None:
    result, again = (run_baseline(Baseline.ORACLE, comparison) for _ in range(2))

    assert result.measurement is not None
    assert len(result.measurement.forget_confidence) == sum(len(rows) for rows in forgotten.values())
    assert result.test_accuracy == result.measurement.test_accuracy
    assert result.measurement == again.measurement
    assert result.seconds > 0


def test_oracle_goes_on_without_a_hospital_that_has_forgotten_everything(
    comparison: Comparison, trained: list[dict[str, Tensor]]
) -> None:
    gone = comparison.hospitals[1]
    train = train_rows(gone)
    everything = {h.name: train if h is gone else np.empty(0, dtype=np.int64) for h in comparison.hospitals}

    result = run_baseline(Baseline.ORACLE, dataclasses.replace(comparison, forgotten=everything))
    without = dataclasses.replace(comparison, hospitals=[h for h in comparison.hospitals if h is not gone])
    run_baseline(Baseline.ORACLE, dataclasses.replace(without, forgotten=everything))

    assert result.measurement is not None
    assert 0 <= result.measurement.forget_accuracy <= 100
    assert same(*trained)


def test_plain_vit_sees_all_records(comparison: Comparison, forgotten: Rows, trained: list[dict[str, Tensor]]) -> None:
    result = run_baseline(Baseline.PLAIN_VIT, comparison)
    run_baseline(Baseline.PLAIN_VIT, poisoned(comparison, forgotten))

    assert not same(*trained)
    # One model and the same test records everywhere.
    assert len(set(result.per_hospital.values())) == 1
    assert result.test_accuracy == pytest.approx(next(iter(result.per_hospital.values())))
    assert result.measurement is None


def test_nearest_neighbours_vote_with_each_hospitals_own_records(comparison: Comparison) -> None:
    nearest = dataclasses.replace(comparison, settings=comparison.settings.replace(neighbours=1))

    result = run_baseline(Baseline.NEIGHBOURS, nearest)

    expected = {}
    for hospital in comparison.hospitals:
        train, test = hospital.given.split(Split.TRAIN), hospital.given.split(Split.TEST)
        similar = (test.encoding.keys @ train.encoding.keys.T).argmax(1).numpy()
        expected[hospital.name] = 100 * float(np.mean(train.records.labels[similar] == test.records.labels))
    assert result.per_hospital == pytest.approx(expected)
    assert result.test_accuracy == pytest.approx(np.mean(list(expected.values())))
    # All test records count alike for the common mix, and not where a hospital sees some classes more often.
    assert result.own_per_hospital != result.per_hospital
    assert result.own_accuracy == pytest.approx(np.mean(list(result.own_per_hospital.values())))


def test_hospital_that_trains_alone_sees_nobody_elses_records(
    comparison: Comparison, trained: list[dict[str, Tensor]]
) -> None:
    second = comparison.hospitals[1]
    rows = train_rows(second)

    clean = run_baseline(Baseline.ALONE, comparison)
    run_baseline(Baseline.ALONE, poisoned(comparison, {second.name: rows}))

    assert [same(trained[place], trained[place + 3]) for place in range(3)] == [True, False, True]
    assert sorted(clean.per_hospital) == ["hospital-1", "hospital-2", "hospital-3"]


def test_nothing_to_compare_with_starts_no_process(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_processes, "ProcessPoolExecutor", None)

    assert run_baselines([], comparison, processes=2) == {}


@pytest.mark.processes
def test_baselines_run_in_other_processes_and_come_back_in_order(comparison: Comparison) -> None:
    names = [Baseline.ALONE, Baseline.NEIGHBOURS]
    done: list[Baseline] = []

    results = run_baselines(names, comparison, processes=1, done=done.append)

    assert list(results) == names
    assert sorted(done) == sorted(names)
    here = run_baseline(Baseline.ALONE, comparison)
    assert results[Baseline.ALONE].per_hospital == pytest.approx(here.per_hospital)
