from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmunkey.common.pathways import PathwayDropout, pathway_sensitivity
from fedmunkey.common.randomness import generator
from fedmunkey.common.settings import Settings

shares = st.floats(0, 1, exclude_max=True)


def test_shares_come_from_the_settings() -> None:
    settings = Settings(image_dropout=0.1, memory_dropout=0.2, self_retrieval=0.3)

    assert PathwayDropout.from_settings(settings) == PathwayDropout(image=0.1, memory=0.2, self_retrieval=0.3)


@given(image=shares, memory=shares, members=st.integers(1, 4), seed=st.integers(0, 1000))
def test_no_record_loses_its_image_and_all_of_its_memory(image: float, memory: float, members: int, seed: int) -> None:
    dropped = PathwayDropout(image, memory, 0.5).sample(64, members, generator(seed))

    assert not (dropped.null_image & dropped.null_memory.all(1)).any()


def test_draw_has_one_flag_for_each_record_and_member() -> None:
    dropped = PathwayDropout(0.5, 0.5, 0.5).sample(5, 3, generator(0))

    assert dropped.own.shape == dropped.null_image.shape == (5,)
    assert dropped.null_memory.shape == (5, 3)
    assert {tensor.dtype for tensor in (dropped.own, dropped.null_image, dropped.null_memory)} == {torch.bool}


def test_each_pathway_is_dropped_in_its_own_share_of_draws() -> None:
    dropped = PathwayDropout(image=0.6, memory=0.1, self_retrieval=0.8).sample(20_000, 4, generator(0))

    assert dropped.own.float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert dropped.null_memory.float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert dropped.null_image.float().mean().item() == pytest.approx(0.6, abs=0.02)


def test_shares_of_zero_leave_everything_in() -> None:
    dropped = PathwayDropout(0.0, 0.0, 0.0).sample(200, 2, generator(0))

    assert not dropped.own.any()
    assert not dropped.null_memory.any()
    assert not dropped.null_image.any()


def test_self_retrieval_of_one_always_puts_the_own_entry_in() -> None:
    assert PathwayDropout(0.0, 0.0, 1.0).sample(200, 2, generator(0)).own.all()


def test_the_same_generator_draws_the_same() -> None:
    dropout = PathwayDropout(0.5, 0.5, 0.5)
    first, second = (dropout.sample(50, 3, generator(1)) for _ in range(2))

    assert torch.equal(first.own, second.own)
    assert torch.equal(first.null_memory, second.null_memory)
    assert torch.equal(first.null_image, second.null_image)


@pytest.mark.parametrize(
    ("image", "memory", "score"), [(0.0, 0.9, 1.0), (0.9, 0.0, -1.0), (0.7, 0.7, 0.0), (0.0, 0.0, 0.0), (0.2, 0.6, 0.5)]
)
def test_sensitivity_says_which_pathway_carries_the_prediction(image: float, memory: float, score: float) -> None:
    assert pathway_sensitivity(image, memory) == pytest.approx(score)
