"""The row-wise Adam of exemplar tokens, against the one of torch."""

from __future__ import annotations

import dataclasses

import torch

from fedmunkey.client.key_store import Tokens
from fedmunkey.client.learning.exemplar_optimiser import step_rows


def random_gradients(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_dense_steps_are_those_of_torch() -> None:
    tokens = Tokens.zeros(5, 3)
    weight = torch.nn.Parameter(torch.zeros(5, 3))
    adam = torch.optim.Adam([weight], lr=0.1)

    for seed in range(20):
        gradients = random_gradients(5, 3, seed=seed)
        step_rows(tokens, torch.arange(5), gradients, 0.1)
        weight.grad = gradients.clone()
        adam.step()

    assert torch.allclose(tokens.offsets, weight.detach(), atol=1e-6)
    assert torch.allclose(tokens.first_moments, adam.state[weight]["exp_avg"], atol=1e-6)
    assert torch.allclose(tokens.second_moments, adam.state[weight]["exp_avg_sq"], atol=1e-6)
    assert tokens.steps.tolist() == [20] * 5


def test_row_moves_as_if_it_were_alone() -> None:
    together, alone = Tokens.zeros(4, 3), Tokens.zeros(1, 3)
    gradients = random_gradients(6, 3)
    taking_part = [[0, 1], [2], [1, 3], [1], [0, 2], [1, 2]]

    for row, rows in zip(gradients, taking_part, strict=True):
        step_rows(together, torch.tensor(rows), row.repeat(len(rows), 1), 0.1)
        if 1 in rows:
            step_rows(alone, torch.tensor([0]), row[None], 0.1)

    for column in dataclasses.fields(Tokens):
        assert torch.equal(getattr(together, column.name)[1], getattr(alone, column.name)[0])


def test_other_rows_stay_bit_for_bit() -> None:
    tokens = Tokens.zeros(4, 3)
    step_rows(tokens, torch.arange(4), random_gradients(4, 3), 0.1)
    before = {column.name: getattr(tokens, column.name).clone() for column in dataclasses.fields(Tokens)}

    step_rows(tokens, torch.empty(0, dtype=torch.int64), torch.empty(0, 3), 0.1)
    step_rows(tokens, torch.tensor([2]), random_gradients(1, 3, seed=1), 0.1)

    assert tokens.steps.tolist() == [1, 1, 2, 1]
    for name, values in before.items():
        assert torch.equal(getattr(tokens, name)[[0, 1, 3]], values[[0, 1, 3]])
        assert not torch.equal(getattr(tokens, name)[2], values[2])


def test_gradients_of_one_row_are_added_up_to_one_step() -> None:
    repeated, once = Tokens.zeros(3, 2), Tokens.zeros(3, 2)
    gradients = random_gradients(4, 2)

    step_rows(repeated, torch.tensor([2, 0, 2, 2]), gradients, 0.1)
    step_rows(once, torch.tensor([0, 2]), torch.stack([gradients[1], gradients[[0, 2, 3]].sum(0)]), 0.1)

    assert repeated.steps.tolist() == [1, 0, 1]
    assert torch.allclose(repeated.offsets, once.offsets)
