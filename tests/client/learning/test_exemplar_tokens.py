"""Exemplar tokens that are computed from their own record alone."""

from __future__ import annotations

import pytest
import torch

from fedmunkey.client.learning.exemplar_tokens import own_tokens
from fedmunkey.common.model.model import ModelShape
from tests.client.conftest import FROZEN, SHAPES, MakeModel, inputs_of

RECORDS = 37


@pytest.mark.parametrize("shape", SHAPES)
def test_token_says_what_the_image_alone_does_not_know(shape: ModelShape, make_model: MakeModel) -> None:
    model, images = make_model(shape), inputs_of(shape, RECORDS)
    labels = torch.arange(RECORDS) % shape.num_classes

    tokens = model.exemplars(labels, own_tokens(model, images).offsets)

    unknown = torch.eye(shape.num_classes)[labels] - model.image_only(images)
    assert torch.allclose(model.memory_logits(tokens), model.memory_strength * unknown, atol=1e-5)
    assert unknown.std() > 0.1


def test_token_is_a_difference_of_label_embeddings_that_have_been_trained(make_model: MakeModel) -> None:
    model, images = make_model(FROZEN), inputs_of(FROZEN, RECORDS)
    with torch.no_grad():
        model.label_embedding.normal_()

    offsets = own_tokens(model, images).offsets

    assert torch.allclose(offsets, -model.image_only(images) @ model.label_embedding, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_bits_of_a_token_do_not_depend_on_other_records_or_order(shape: ModelShape, make_model: MakeModel) -> None:
    model, images = make_model(shape), inputs_of(shape, RECORDS)
    alone = torch.cat([own_tokens(model, images[row : row + 1]).offsets for row in range(RECORDS)])
    order = torch.randperm(RECORDS, generator=torch.Generator().manual_seed(2))

    assert torch.equal(own_tokens(model, images).offsets, alone)
    assert torch.equal(own_tokens(model, images[order]).offsets, alone[order])
    assert torch.equal(own_tokens(model, images[3:20]).offsets, alone[3:20])


@pytest.mark.parametrize("shape", SHAPES)
def test_bits_of_a_token_do_not_depend_on_torchs_threads(shape: ModelShape, make_model: MakeModel) -> None:
    model, images = make_model(shape), inputs_of(shape, RECORDS)

    found = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        found.append(own_tokens(model, images).offsets)

    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    # Those that are computed together are nearly the same.
    assert torch.allclose(found[0], own_tokens(model, images, together=16).offsets, atol=1e-5)


@pytest.mark.parametrize("together", [1, 16])
def test_it_takes_one_thread_and_leaves_torch_as_many_as_it_had(make_model: MakeModel, together: int) -> None:
    torch.set_num_threads(3)
    seen: list[tuple[int, int]] = []

    def note(done: int) -> None:
        seen.append((done, torch.get_num_threads()))

    own_tokens(make_model(FROZEN), inputs_of(FROZEN, RECORDS), together=together, progress=note)

    assert sum(done for done, _ in seen) == RECORDS
    assert {threads for _, threads in seen} == {1}
    assert torch.get_num_threads() == 3
    with pytest.raises(ValueError, match="inputs must be"):
        own_tokens(make_model(FROZEN), inputs_of(FROZEN, RECORDS)[:, :, 1:], together=together)
    assert torch.get_num_threads() == 3


def test_tokens_have_no_optimiser_state(make_model: MakeModel) -> None:
    tokens = own_tokens(make_model(FROZEN), inputs_of(FROZEN, RECORDS))

    assert tokens.offsets.shape == (RECORDS, FROZEN.exemplar_size)
    assert not any(part.any() for part in (tokens.first_moments, tokens.second_moments, tokens.steps))
    assert own_tokens(make_model(FROZEN), inputs_of(FROZEN, 0)).offsets.shape == (0, FROZEN.exemplar_size)
