"""Exemplar tokens that are computed from their own record alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fedmunkey.client.learning.exemplar_tokens import own_tokens
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.settings.settings import ImagePath
from tests.client.conftest import MakeModel

PATCHES = ModelShape(ImagePath.PATCHES, (3, 8, 8), 2, num_classes=5, width=32, depth=2, heads=4, exemplar_size=16)
FROZEN = replace(PATCHES, image_path=ImagePath.FROZEN, input_shape=(3, 50), patch_size=0)
SHAPES = [
    pytest.param(PATCHES, id="patches"),
    pytest.param(FROZEN, id="frozen"),
    pytest.param(replace(FROZEN, depth=0), id="without-blocks"),
]
RECORDS = 37


def inputs(shape: ModelShape) -> Tensor:
    draws = torch.Generator().manual_seed(1)
    if shape.image_path is ImagePath.PATCHES:
        return torch.randint(0, 256, (RECORDS, *shape.input_shape), generator=draws, dtype=torch.uint8)
    return torch.randn(RECORDS, *shape.input_shape, generator=draws)


@pytest.mark.parametrize("shape", SHAPES)
def test_token_says_what_the_image_alone_does_not_know(shape: ModelShape, make_model: MakeModel) -> None:
    model, images = make_model(shape), inputs(shape)
    labels = torch.arange(RECORDS) % shape.num_classes

    tokens = model.exemplars(labels, own_tokens(model, images).offsets)

    unknown = torch.eye(shape.num_classes)[labels] - model.image_only(images)
    assert torch.allclose(model.memory_logits(tokens), model.memory_strength * unknown, atol=1e-5)
    assert unknown.std() > 0.1


def test_token_is_a_difference_of_label_embeddings_that_have_been_trained(make_model: MakeModel) -> None:
    model, images = make_model(FROZEN), inputs(FROZEN)
    with torch.no_grad():
        model.label_embedding.normal_()

    offsets = own_tokens(model, images).offsets

    assert torch.allclose(offsets, -model.image_only(images) @ model.label_embedding, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_bits_of_a_token_do_not_depend_on_other_records_or_order(shape: ModelShape, make_model: MakeModel) -> None:
    model, images = make_model(shape), inputs(shape)
    alone = torch.cat([own_tokens(model, images[row : row + 1]).offsets for row in range(RECORDS)])
    order = torch.randperm(RECORDS, generator=torch.Generator().manual_seed(2))

    assert torch.equal(own_tokens(model, images).offsets, alone)
    assert torch.equal(own_tokens(model, images[order]).offsets, alone[order])
    assert torch.equal(own_tokens(model, images[3:20]).offsets, alone[3:20])


@pytest.mark.parametrize("shape", SHAPES)
def test_bits_of_a_token_do_not_depend_on_torchs_threads(shape: ModelShape, make_model: MakeModel) -> None:
    model, images = make_model(shape), inputs(shape)

    found = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        found.append(own_tokens(model, images).offsets)

    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("shape", SHAPES)
def test_tokens_that_are_computed_together_are_nearly_the_same(shape: ModelShape, make_model: MakeModel) -> None:
    model, images = make_model(shape), inputs(shape)

    apart, together = own_tokens(model, images), own_tokens(model, images, together=16)

    assert torch.allclose(apart.offsets, together.offsets, atol=1e-5)


@pytest.mark.parametrize("together", [1, 16])
def test_it_takes_one_thread_and_leaves_torch_as_many_as_it_had(make_model: MakeModel, together: int) -> None:
    torch.set_num_threads(3)
    seen: list[tuple[int, int]] = []

    def note(done: int) -> None:
        seen.append((done, torch.get_num_threads()))

    own_tokens(make_model(FROZEN), inputs(FROZEN), together=together, progress=note)

    assert sum(done for done, _ in seen) == RECORDS
    assert {threads for _, threads in seen} == {1}
    assert torch.get_num_threads() == 3


def test_torch_has_as_many_threads_as_before_after_an_error(make_model: MakeModel) -> None:
    torch.set_num_threads(3)

    with pytest.raises(ValueError, match="inputs must be"):
        own_tokens(make_model(FROZEN), inputs(FROZEN)[:, :, 1:])

    assert torch.get_num_threads() == 3


def test_tokens_have_no_optimiser_state(make_model: MakeModel) -> None:
    tokens = own_tokens(make_model(FROZEN), inputs(FROZEN))

    assert tokens.offsets.shape == (RECORDS, FROZEN.exemplar_size)
    assert not any(part.any() for part in (tokens.first_moments, tokens.second_moments, tokens.steps))


def test_no_records_have_no_tokens(make_model: MakeModel) -> None:
    assert own_tokens(make_model(FROZEN), inputs(FROZEN)[:0]).offsets.shape == (0, FROZEN.exemplar_size)
