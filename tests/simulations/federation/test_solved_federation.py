"""Weights that are solved for do not depend on who has which record, nor on any that was forgotten."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedmunkey.client.learning.own_memory import CaseMixes, evaluate_mixes
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.answers import common_answers
from fedmunkey.simulations.federation.hospitals import Encoded, Hospital
from fedmunkey.simulations.federation.solved_federation import SolvedFederation, solve_records


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.replace(guarantee="exact", random_features=50)


@pytest.fixture
def sites(hospitals: list[Hospital]) -> dict[str, Encoded]:
    return {hospital.name: hospital.given.split(Split.TRAIN) for hospital in hospitals}


@pytest.fixture
def solved(sites: dict[str, Encoded], settings: Settings, shape: ModelShape) -> SolvedFederation:
    return solve_records(sites, settings, shape)


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_shared_weights_have_the_same_bytes_for_any_number_of_hospitals_in_any_order(
    everything: Encoded, solved: SolvedFederation, settings: Settings, shape: ModelShape, parts: int
) -> None:
    train = everything.split(Split.TRAIN)
    rows = np.random.default_rng(parts).permutation(len(train.records))

    other = solve_records({str(number): train.select(rows[number::parts]) for number in range(parts)}, settings, shape)

    assert other.release.digest() == solved.release.digest()
    assert other.release.weights.any()


def test_forgetting_leaves_the_bytes_of_a_federation_that_never_had_the_records(
    sites: dict[str, Encoded], solved: SolvedFederation, settings: Settings, shape: ModelShape
) -> None:
    gone = {name: frozenset(some.records.record_ids[::5].tolist()) for name, some in sites.items()}
    rest = {name: some.select(~np.isin(some.records.record_ids, list(gone[name]))) for name, some in sites.items()}

    left, never = solved.forget(gone), solve_records(rest, settings, shape)

    assert left.same_bytes(never)
    assert not left.same_bytes(solved)
    assert left.release.digest() != solved.release.digest()


def test_one_answer_is_everybodys_and_the_other_the_hospitals_own(
    solved: SolvedFederation, everything: Encoded
) -> None:
    test = everything.split(Split.TEST)
    common = [common_answers(solved, name, test) for name in sorted(solved.places)]
    own = [solved.answer(name, test) for name in sorted(solved.places)]

    assert all(torch.equal(one, common[0]) for one in common)
    assert torch.equal(common[0], solved.weights_alone("hospital-1", test))
    assert not torch.equal(own[0], own[1])
    assert torch.allclose(own[0].sum(1), torch.ones(len(own[0])))


def test_without_a_record_nothing_is_known(everything: Encoded, settings: Settings, shape: ModelShape) -> None:
    nobody = everything.select(np.empty(0, dtype=np.int64))

    found = solve_records({"hospital-1": nobody}, settings, shape)

    assert found.sites == frozenset()
    said = found.answer("hospital-1", everything)
    assert torch.equal(said, torch.full_like(said, 1 / settings.num_classes))


def test_hospital_that_has_left_teaches_nobody(
    sites: dict[str, Encoded], solved: SolvedFederation, settings: Settings, shape: ModelShape
) -> None:
    gone = {"hospital-2": frozenset(sites["hospital-2"].records.record_ids.tolist())}

    left = solved.forget(gone)

    stays = {name: some for name, some in sites.items() if name != "hospital-2"}
    assert left.release.digest() == solve_records(stays, settings, shape).release.digest()
    assert left.sites == {"hospital-1", "hospital-3"}
    assert left.sent_bytes == 2 / 3 * replace(left, places=solved.places).sent_bytes


def test_all_right_is_no_more_than_all() -> None:
    random = np.random.default_rng(0)
    for count in range(1, 60):
        labels, bank = random.integers(10, size=count), random.integers(10, size=97)
        right = np.eye(10)[labels]

        found = evaluate_mixes(CaseMixes(right, right), labels, bank)

        assert found.own_accuracy == pytest.approx(1) or np.isnan(found.own_accuracy)
        assert found.own_accuracy <= 1 or np.isnan(found.own_accuracy)
