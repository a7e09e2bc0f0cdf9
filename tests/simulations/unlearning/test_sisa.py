"""SISA: only shards that lose a record are trained again, and to the bytes of a federation that never had it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.answers import Answers
from fedmunkey.simulations.federation.hospitals import Encoded, Hospital
from fedmunkey.simulations.federation.plain_models import PlainModel
from fedmunkey.simulations.unlearning.method import Budget, Forgotten, weights_bytes
from fedmunkey.simulations.unlearning.plain_federation import PlainFederation, first_plain
from fedmunkey.simulations.unlearning.sisa import SHARDS, Sisa, SisaFamily, SisaFederation, shard_of, shards_of
from tests.simulations.given_records import case_of, train_rows
from tests.simulations.unlearning.small_case import same as same_weights

BUDGET = Budget(1)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.replace(num_rounds=2)


@pytest.fixture
def trained(hospitals: list[Hospital], settings: Settings, shape: ModelShape) -> SisaFederation:
    return SisaFamily().train({h.name: h.given.split(Split.TRAIN) for h in hospitals}, settings, shape)


def federation(answers: Answers) -> SisaFederation:
    assert isinstance(answers, SisaFederation)
    return answers


def weights(model: PlainModel) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def same(left: PlainModel, right: PlainModel) -> bool:
    return same_weights(weights(left), weights(right))


def in_shard(hospital: Hospital, shard: int, seed: int) -> NDArray[np.int64]:
    rows = train_rows(hospital)
    ids = hospital.given.records.record_ids[rows].tolist()
    return rows[[shard_of(record, seed) == shard for record in ids]]


def test_only_the_shard_that_loses_records_changes_and_equals_that_of_a_federation_without_them(
    hospitals: list[Hospital], settings: Settings, shape: ModelShape, trained: SisaFederation
) -> None:
    case = case_of(hospitals, {"hospital-1": in_shard(hospitals[0], 2, settings.seed)[:2]}, settings, shape)
    before = {shard: weights(model) for shard, model in trained.models.items()}

    forgotten: Forgotten = Sisa().forget(trained, case, BUDGET)

    after = federation(forgotten.answers)
    oracle = SisaFamily().train(case.retained(), settings, shape)
    assert sorted(trained.models) == sorted(after.models) == sorted(oracle.models) == list(range(SHARDS))
    assert [same(trained.models[shard], after.models[shard]) for shard in range(SHARDS)] == [True, True, False, True]
    assert all(same(oracle.models[shard], after.models[shard]) for shard in range(SHARDS))
    for shard, model in trained.models.items():
        assert same_weights(weights(model), before[shard])
    asked = case.hospitals[0].given
    assert torch.equal(after.answer("hospital-1", asked), oracle.answer("hospital-1", asked))
    # Both ways, two rounds, and the hospitals that still have records in that shard.
    members = len(shards_of(case.retained(), settings.seed)[2])
    assert forgotten.bytes_sent == 2 * 2 * members * weights_bytes(trained.models[2])


def test_hospital_that_forgets_everything_is_left_out_and_still_answers(
    hospitals: list[Hospital], settings: Settings, shape: ModelShape, trained: SisaFederation
) -> None:
    case = case_of(hospitals, {"hospital-2": train_rows(hospitals[1])}, settings, shape)

    after = federation(Sisa().forget(trained, case, BUDGET).answers)

    assert after.sites == {"hospital-1", "hospital-3"}
    answers = after.answer("hospital-2", hospitals[1].given)
    assert torch.allclose(answers.sum(1), torch.ones(len(answers)))


def test_shard_that_loses_all_its_records_has_no_vote(
    hospitals: list[Hospital], settings: Settings, shape: ModelShape, trained: SisaFederation
) -> None:
    rows = {h.name: in_shard(h, 1, settings.seed) for h in hospitals}

    forgotten = Sisa().forget(trained, case_of(hospitals, rows, settings, shape), BUDGET)

    assert sorted(federation(forgotten.answers).models) == [0, 2, 3]
    assert forgotten.bytes_sent == 0


def test_probabilities_are_the_mean_over_shards_and_uniform_without_any(
    hospitals: list[Hospital], trained: SisaFederation
) -> None:
    asked = hospitals[0].given.split(Split.TEST)

    answers = trained.answer("hospital-1", asked)

    each = [PlainFederation(model, trained.sites).answer("hospital-1", asked) for model in trained.models.values()]
    assert torch.allclose(answers, sum(each, torch.zeros_like(answers)) / SHARDS)
    assert torch.equal(trained.weights_alone("hospital-1", asked), answers)
    nobody = SisaFederation({}, frozenset(), 10).answer("hospital-1", asked)
    assert torch.equal(nobody, torch.full((len(asked.records), 10), 0.1))


def test_record_keeps_its_shard_whatever_else_there_is(hospitals: list[Hospital]) -> None:
    given = hospitals[0].given

    def homes(records: Encoded) -> dict[str, int]:
        parts = shards_of({"hospital-1": records}, 3)
        return {record: shard for shard in parts for record in parts[shard]["hospital-1"].records.record_ids.tolist()}

    all_of, some_of = homes(given), homes(given.select(np.arange(0, len(given.records), 2)))
    assert set(all_of) == set(given.records.record_ids)
    assert some_of == {record: all_of[record] for record in given.records.record_ids[::2]}
    assert set(all_of.values()) == set(range(SHARDS))


def test_models_begin_from_different_weights_and_are_shown_after_each_round(
    hospitals: list[Hospital], settings: Settings, shape: ModelShape, trained: SisaFederation
) -> None:
    seen: list[tuple[int, list[dict[str, torch.Tensor]]]] = []

    def note(number: int, answers: Answers) -> None:
        seen.append((number, [weights(model) for model in federation(answers).models.values()]))

    records = {h.name: h.given.split(Split.TRAIN) for h in hospitals}
    again = SisaFamily().train(records, settings, shape, after_round=note)

    assert [number for number, _ in seen] == [1, 2]
    assert not torch.equal(seen[0][1][0]["class_token"], seen[1][1][0]["class_token"])
    assert not torch.equal(seen[1][1][0]["class_token"], seen[1][1][1]["class_token"])
    assert all(same(model, trained.models[shard]) for shard, model in again.models.items())
    assert not same(first_plain(shape, settings.seed), trained.models[0])
