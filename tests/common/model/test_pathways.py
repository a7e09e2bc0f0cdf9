from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmunkey.common.model.pathways import DroppedPathways, pathway_sensitivity
from fedmunkey.common.model.randomness import generator
from fedmunkey.common.settings.settings import Settings

shares = st.floats(0, 1, exclude_max=True)


def draw(image: float, memory: float, own: float, batch: int, members: int, seed: int = 0) -> DroppedPathways:
    settings = Settings(image_dropout=image, memory_dropout=memory, self_retrieval=own)
    return DroppedPathways.draw(settings, batch, members, generator(seed))


@given(image=shares, memory=shares, members=st.integers(1, 4), seed=st.integers(0, 1000))
def test_no_record_loses_its_image_and_all_of_its_memory(image: float, memory: float, members: int, seed: int) -> None:
    dropped = draw(image, memory, 0.5, 64, members, seed)

    assert not (dropped.null_image & dropped.null_memory.all(1)).any()


def test_each_pathway_is_dropped_in_its_own_share_of_draws() -> None:
    dropped = draw(image=0.6, memory=0.1, own=0.8, batch=20_000, members=4)

    assert dropped.own.shape == dropped.null_image.shape == (20_000,)
    assert dropped.null_memory.shape == (20_000, 4)
    assert dropped.own.float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert dropped.null_memory.float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert dropped.null_image.float().mean().item() == pytest.approx(0.6, abs=0.02)


def test_shares_of_zero_and_one_leave_nothing_to_chance() -> None:
    dropped = draw(0.0, 0.0, 0.0, batch=200, members=2)

    assert not any(flags.any() for flags in (dropped.own, dropped.null_memory, dropped.null_image))
    assert draw(0.0, 0.0, 1.0, batch=200, members=2).own.all()


def test_the_same_generator_draws_the_same() -> None:
    first, second = (draw(0.5, 0.5, 0.5, batch=50, members=3, seed=1) for _ in range(2))

    assert torch.equal(first.own, second.own)
    assert torch.equal(first.null_memory, second.null_memory)
    assert torch.equal(first.null_image, second.null_image)


@pytest.mark.parametrize(
    ("image", "memory", "score"), [(0.0, 0.9, 1.0), (0.9, 0.0, -1.0), (0.7, 0.7, 0.0), (0.0, 0.0, 0.0), (0.2, 0.6, 0.5)]
)
def test_sensitivity_says_which_pathway_carries_the_prediction(image: float, memory: float, score: float) -> None:
    assert pathway_sensitivity(image, memory) == pytest.approx(score)
