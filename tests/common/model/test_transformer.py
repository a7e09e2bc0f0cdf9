from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fedmunkey.common.model.transformer import Block, FeatureEmbedding, PatchEmbedding, packed_mask, position_embedding

CLOSE = 1e-5


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


def images(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def test_mask_lets_members_see_the_image_and_themselves_only() -> None:
    allowed = ["110000", "110000", "111100", "111100", "110011", "110011"]

    assert packed_mask(2, 2).tolist() == [[letter == "1" for letter in row] for row in allowed]


def test_mask_of_one_member_equals_the_corner_of_a_larger_one() -> None:
    assert torch.equal(packed_mask(5, 1), packed_mask(5, 4)[:7, :7])


def test_block_without_mask_lets_all_tokens_see_all_tokens() -> None:
    block, tokens = Block(8, 2), torch.randn(3, 5, 8)

    assert torch.allclose(block(tokens), block(tokens, torch.ones(5, 5, dtype=torch.bool)), atol=CLOSE)


@pytest.mark.parametrize("shared", [0, 2])
@pytest.mark.parametrize(
    "rows", [slice(None), slice(2, None), slice(2, None, 2), slice(1, None), slice(0, 1), slice(0, 2)], ids=str
)
def test_block_computes_the_same_whichever_tokens_it_updates(rows: slice, shared: int) -> None:
    block, tokens, mask = Block(8, 2), torch.randn(3, 6, 8), packed_mask(2, 2)

    some = block(tokens, mask, shared=shared, rows=rows)

    assert torch.allclose(some, block(tokens, mask)[:, rows], atol=CLOSE)


def test_masked_token_does_not_reach_the_others() -> None:
    block, tokens, mask = Block(8, 2), torch.randn(1, 6, 8), packed_mask(2, 2)
    changed = tokens.clone()
    changed[:, 3] = torch.randn(8)

    difference = (block(tokens, mask) - block(changed, mask)).abs().amax((0, 2))

    assert difference[[0, 1, 4, 5]].max() < CLOSE
    assert difference[[2, 3]].min() > 10 * CLOSE


def test_heads_attend_apart() -> None:
    one, two = Block(8, 1), Block(8, 2)
    two.load_state_dict(one.state_dict())
    tokens = torch.randn(1, 5, 8)

    assert not torch.allclose(one(tokens), two(tokens), atol=CLOSE)


def test_patch_embedding_projects_each_patch_by_itself_in_reading_order() -> None:
    embedding = PatchEmbedding((3, 4, 6), 2, 8)
    original = images(1, 3, 4, 6)
    changed = original.clone()
    changed[0, 1, 2, 3] ^= 255

    difference = (embedding(original) - embedding(changed)).abs().amax(-1)[0]

    assert embedding.tokens == 6
    assert difference.nonzero().flatten().tolist() == [4]


def test_patch_embedding_projects_the_pixels_of_a_patch() -> None:
    embedding = PatchEmbedding((1, 4, 4), 2, 8)
    original = images(2, 1, 4, 4)
    second_patch = original[:, :, :2, 2:].flatten(1).float() / 127.5 - 1

    assert torch.allclose(embedding(original)[:, 1], embedding.project(second_patch), atol=CLOSE)


def test_patch_embedding_reads_images_in_any_memory_layout() -> None:
    embedding, original = PatchEmbedding((3, 4, 4), 2, 8), images(2, 3, 4, 4)
    channels_last = original.contiguous(memory_format=torch.channels_last)

    assert torch.allclose(embedding(original), embedding(channels_last), atol=CLOSE)


def test_feature_embedding_normalises_each_token_by_itself() -> None:
    embedding, features = FeatureEmbedding((2, 16), 8), torch.randn(3, 2, 16)
    changed = features.clone()
    changed[:, 0] = changed[:, 0] * 50 + 7

    assert embedding.tokens == 2
    assert torch.allclose(embedding(features), embedding(changed), atol=1e-4)


def test_feature_embedding_takes_half_precision_features() -> None:
    embedding, features = FeatureEmbedding((2, 16), 8), torch.randn(3, 2, 16).half()

    assert torch.equal(embedding(features), embedding(features.float()))


def test_position_embedding_starts_at_half_a_unit_and_is_learned() -> None:
    position = position_embedding(100, 64)

    assert position.shape == (1, 100, 64)
    assert position.requires_grad
    assert position.std().item() == pytest.approx(0.5, rel=0.05)
