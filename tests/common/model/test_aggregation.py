from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fedmunkey.common.model.aggregation import Members, Retrieved, aggregate, vote_weights
from fedmunkey.common.model.recipe import Reading
from fedmunkey.common.settings.settings import AggregationName

BLENDS = [AggregationName.SOFTMAX, AggregationName.RANK]
CHOSEN = [AggregationName.ENSEMBLE, *BLENDS]
NEARLY = 0.003
"""How far votes lie from equal ones, so that the nearest can break a tie."""


def retrieved(similarities: list[list[float]], present: list[list[bool]] | None = None, size: int = 5) -> Retrieved:
    scores = torch.tensor(similarities)
    exemplars = torch.randn(*scores.shape, size, generator=torch.Generator().manual_seed(0))
    there = torch.ones_like(scores, dtype=torch.bool) if present is None else torch.tensor(present)
    return Retrieved(exemplars, scores, there)


def blended(exemplars: Tensor, shares: list[float]) -> Tensor:
    return (exemplars * torch.tensor(shares)[:, None]).sum(0)


def members_of(
    name: AggregationName, found: Retrieved, *, temperature: float = 0.1, image_vote: bool = False
) -> Members:
    return aggregate(found, Reading(found.exemplars.shape[1], name, temperature, image_vote))


def test_ensemble_gives_every_entry_nearly_the_same_vote() -> None:
    found = retrieved([[0.9, 0.5, 0.1], [0.2, 0.1, 0.0]])
    members = members_of(AggregationName.ENSEMBLE, found)

    assert torch.equal(members.exemplars, found.exemplars)
    assert not members.null_memory.any()
    assert torch.allclose(members.weights, torch.full((2, 3), 1 / 3), atol=NEARLY)
    assert (members.weights.diff(dim=1) < 0).all()


@pytest.mark.parametrize("count", [2, 4, 10])
def test_nearer_of_equally_many_entries_have_the_larger_vote_and_a_majority_has_the_largest(count: int) -> None:
    votes = vote_weights(torch.ones(1, count, dtype=torch.bool))[0]

    nearest_of = [(votes[row], votes[row + 1 :].sum() - (count - row - 2)) for row in range(count - 1)]
    assert all(nearest > others for nearest, others in nearest_of)
    assert votes[: count // 2].sum() < votes[-(count // 2 + 1) :].sum()


def test_absent_entries_of_an_ensemble_have_no_vote() -> None:
    members = members_of(AggregationName.ENSEMBLE, retrieved([[0.9, 0.5, 0.1]], [[True, True, False]]))

    assert torch.allclose(members.weights, torch.tensor([[0.5, 0.5, 0.0]]), atol=NEARLY)
    assert members.weights[0, 2] == 0
    assert members.null_memory.tolist() == [[False, False, True]]


def test_softmax_weighs_entries_by_similarity_over_temperature() -> None:
    found = retrieved([[0.9, 0.5, 0.1]])
    members = members_of(AggregationName.SOFTMAX, found, temperature=0.4)
    shares = torch.softmax(torch.tensor([0.9, 0.5, 0.1]) / 0.4, dim=0).tolist()

    assert members.exemplars.shape == (1, 1, 5)
    assert torch.allclose(members.exemplars[0, 0], blended(found.exemplars[0], shares), atol=1e-6)
    assert members.weights.tolist() == [[1.0]]


@pytest.mark.parametrize(("temperature", "shares"), [(1e-6, [1.0, 0.0, 0.0]), (100.0, [1 / 3] * 3)])
def test_softmax_reads_the_nearest_entry_at_the_lowest_temperature_and_the_mean_at_a_high_one(
    temperature: float, shares: list[float]
) -> None:
    found = retrieved([[0.9, 0.899, -0.5]])
    members = members_of(AggregationName.SOFTMAX, found, temperature=temperature)

    assert torch.allclose(members.exemplars[0, 0], blended(found.exemplars[0], shares), atol=1e-2)


def test_rank_weighs_entries_by_one_over_rank() -> None:
    found = retrieved([[0.9, 0.5, 0.1]])
    members = members_of(AggregationName.RANK, found)
    total = 1 + 1 / 2 + 1 / 3

    expected = blended(found.exemplars[0], [1 / total, 1 / 2 / total, 1 / 3 / total])
    assert torch.allclose(members.exemplars[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize("name", BLENDS)
def test_absent_entries_have_no_part_in_a_blend(name: AggregationName) -> None:
    found = retrieved([[0.9, 0.5, -torch.inf]], [[True, True, False]])
    fewer = Retrieved(found.exemplars[:, :2], found.similarities[:, :2], found.present[:, :2])

    with_absent, without = members_of(name, found), members_of(name, fewer)

    assert torch.allclose(with_absent.exemplars, without.exemplars, atol=1e-6)
    assert not with_absent.null_memory.any()


@pytest.mark.parametrize("name", CHOSEN)
@pytest.mark.parametrize("image_vote", [False, True])
def test_weights_sum_to_one_and_an_empty_bank_leaves_null_memory(name: AggregationName, image_vote: bool) -> None:
    found = retrieved(
        [[0.9, 0.5, 0.1], [0.9, 0.5, -torch.inf], [-torch.inf] * 3],
        [[True, True, True], [True, True, False], [False, False, False]],
    )
    members = members_of(name, found, image_vote=image_vote)

    assert torch.allclose(members.weights.sum(1), torch.ones(3))
    assert members.null_memory[2].all()
    assert members.exemplars.isfinite().all()
    assert members.weights.shape == members.null_memory.shape == members.exemplars.shape[:2]


@pytest.mark.parametrize(("name", "count"), [(AggregationName.ENSEMBLE, 3), *((name, 1) for name in BLENDS)])
def test_image_vote_adds_one_null_member_with_an_equal_vote(name: AggregationName, count: int) -> None:
    found = retrieved([[0.9, 0.5, 0.1]])
    plain, voting = members_of(name, found), members_of(name, found, image_vote=True)

    assert voting.null_memory.tolist() == [[False] * count + [True]]
    assert torch.allclose(voting.weights, torch.full((1, count + 1), 1 / (count + 1)), atol=NEARLY)
    assert torch.equal(voting.exemplars[:, :-1], plain.exemplars)


@pytest.mark.parametrize("name", CHOSEN)
def test_gradient_reaches_the_exemplar_tokens(name: AggregationName) -> None:
    found = retrieved([[0.9, 0.5]])
    exemplars = found.exemplars.requires_grad_()

    (gradient,) = torch.autograd.grad(members_of(name, found).exemplars.sum(), [exemplars])

    assert gradient.abs().min() > 0
