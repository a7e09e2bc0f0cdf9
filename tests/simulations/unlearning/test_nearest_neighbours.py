"""Votes of the nearest keys on a hand-made bank, before and after entries are dropped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.settings.settings import ImagePath, Settings
from fedmunkey.simulations.federation.answers import Answers
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Hospital
from fedmunkey.simulations.unlearning.method import Budget
from fedmunkey.simulations.unlearning.nearest_neighbours import NearestNeighbours, NeighbourFamily, NeighbourFederation
from tests.simulations.tiny_hospitals import hospital_with, records_of

SETTINGS = Settings(num_classes=3, neighbours=3)
SHAPE = ModelShape(ImagePath.PATCHES, (1, 1, 1), 1, num_classes=3, width=8, depth=1, heads=1, exemplar_size=2)
KEEP = np.empty(0, dtype=np.int64)


def hospital(name: str, degrees: list[float], labels: list[int]) -> Hospital:
    """Return a hospital whose keys lie on the unit circle."""
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float32))
    records = records_of(name, [Split.TRAIN] * len(labels), labels=labels, class_names=("a", "b", "c"))
    return hospital_with(name, records, torch.stack([angles.cos(), angles.sin()], dim=1))


FIRST = hospital("hospital-1", [0, 10, 20, 90, 100], [0, 1, 1, 2, 2])
SECOND = hospital("hospital-2", [0], [2])
QUERY = hospital("elsewhere", [1, 95], [0, 0]).given


def case_of(first: list[int], second: list[int]) -> Case:
    rows = {"hospital-1": np.array(first, dtype=np.int64), "hospital-2": np.array(second, dtype=np.int64)}
    nothing = {"hospital-1": KEEP, "hospital-2": KEEP}
    return Case([FIRST, SECOND], [rows], nothing, SETTINGS, SHAPE)


@pytest.fixture
def trained() -> NeighbourFederation:
    seen: list[tuple[int, Answers]] = []
    case, note = case_of([0], []), lambda number, answers: seen.append((number, answers))
    federation = NeighbourFamily().train(case.everything(), SETTINGS, SHAPE, after_round=note)
    assert seen == [(1, federation)]
    return federation


def test_labels_of_the_nearest_keys_vote(trained: NeighbourFederation) -> None:
    answers = trained.answer("hospital-1", QUERY)

    # At 1 degree the nearest are 0, 10 and 20; at 95 they are 90, 100 and 20.
    assert torch.allclose(answers, torch.tensor([[1 / 3, 2 / 3, 0], [0, 1 / 3, 2 / 3]]), atol=3e-3)
    assert torch.allclose(answers.sum(1), torch.ones(2))
    # A hospital with a single entry has a single vote.
    assert torch.equal(trained.answer("hospital-2", QUERY).argmax(1), torch.tensor([2, 2]))
    # Nothing is shared.
    assert torch.equal(trained.weights_alone("hospital-1", QUERY), torch.full((2, 3), 1 / 3))


def test_dropped_entries_make_room_for_the_next_nearest(trained: NeighbourFederation) -> None:
    forgotten = NearestNeighbours().forget(trained, case_of([1, 2], []), Budget(1))

    assert torch.allclose(
        forgotten.answers.answer("hospital-1", QUERY), torch.tensor([[1 / 3, 0, 2 / 3], [1 / 3, 0, 2 / 3]]), atol=3e-3
    )
    assert forgotten.bytes_sent == 0
    assert len(trained.records["hospital-1"].records) == 5


def test_what_is_left_is_what_the_oracle_has(trained: NeighbourFederation) -> None:
    case = case_of([0, 3], [])

    after = NearestNeighbours().forget(trained, case, Budget(1)).answers

    oracle = NeighbourFamily().train(case.retained(), SETTINGS, SHAPE)
    for site in ("hospital-1", "hospital-2"):
        assert torch.equal(after.answer(site, QUERY), oracle.answer(site, QUERY))


def test_hospital_without_entries_is_left_out_and_answers_uniformly(trained: NeighbourFederation) -> None:
    after = NearestNeighbours().forget(trained, case_of([], [0]), Budget(1)).answers

    assert after.sites == {"hospital-1"}
    assert torch.equal(after.answer("hospital-2", QUERY), torch.full((2, 3), 1 / 3))
    assert torch.equal(after.answer("hospital-3", QUERY), torch.full((2, 3), 1 / 3))
    assert after.answer("hospital-1", QUERY.select(KEEP)).shape == (0, 3)
