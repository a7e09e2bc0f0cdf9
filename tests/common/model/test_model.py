from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedmunkey.common.model.aggregation import Members, Retrieved, vote_weights
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.settings.settings import AggregationName, ImagePath, Settings

PATCHES = ModelShape(ImagePath.PATCHES, (3, 8, 12), 4, num_classes=5, width=16, depth=3, heads=4, exemplar_size=6)
FROZEN = replace(PATCHES, image_path=ImagePath.FROZEN, input_shape=(2, 24), patch_size=0)
SHAPES = [pytest.param(PATCHES, id="patches"), pytest.param(FROZEN, id="frozen")]
WITHOUT_BLOCKS = [
    pytest.param(replace(PATCHES, depth=0), id="patches-without-blocks"),
    pytest.param(replace(FROZEN, depth=0), id="frozen-without-blocks"),
]
EVERY_SHAPE = [*SHAPES, *WITHOUT_BLOCKS]
CLOSE = 1e-5


def munkey(shape: ModelShape) -> Munkey:
    """Build a model whose null tokens and logits, near zero or zero at first, are large enough to be seen."""
    torch.manual_seed(0)
    model = Munkey(shape)
    null_tokens = [model.null_image, model.null_memory, model.class_token] if shape.depth else []
    logits = [*model.linear.parameters(), *(model.head.parameters() if shape.depth else [])]
    with torch.no_grad():
        for parameter in (*null_tokens, *logits):
            parameter.normal_()
    return model


def inputs(shape: ModelShape, batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if shape.image_path is ImagePath.PATCHES:
        return torch.randint(0, 256, (batch, *shape.input_shape), generator=generator, dtype=torch.uint8)
    return torch.randn(batch, *shape.input_shape, generator=generator)


def exemplars(shape: ModelShape, batch: int, members: int) -> Tensor:
    return torch.randn(batch, members, shape.exemplar_size, generator=torch.Generator().manual_seed(2))


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("shape", EVERY_SHAPE)
@pytest.mark.parametrize("members", [1, 2, 5])
def test_packed_ensemble_equals_separate_passes(shape: ModelShape, members: int) -> None:
    model, images, tokens = munkey(shape), inputs(shape, 3), exemplars(shape, 3, members)
    null_memory = torch.rand(3, members, generator=torch.Generator().manual_seed(3)) < 0.4
    null_image = torch.tensor([False, True, False])

    packed = model(images, tokens, null_memory=null_memory, null_image=null_image)
    separate = torch.cat(
        [
            model(images, tokens[:, m : m + 1], null_memory=null_memory[:, m : m + 1], null_image=null_image)
            for m in range(members)
        ],
        dim=1,
    )

    assert packed.shape == (3, members, shape.num_classes)
    assert torch.allclose(packed, separate, atol=CLOSE, rtol=0)


@pytest.mark.parametrize("shape", EVERY_SHAPE)
def test_packed_ensemble_has_the_gradients_of_separate_passes(shape: ModelShape) -> None:
    model, images = munkey(shape), inputs(shape, 3)
    tokens = exemplars(shape, 3, 4).requires_grad_()
    labels = torch.tensor([0, 1, 2])
    null_memory = torch.zeros(3, 4, dtype=torch.bool)
    null_memory[:, 2] = True

    packed = model(images, tokens, null_memory=null_memory)
    functional.cross_entropy(packed.flatten(0, 1), labels.repeat_interleave(4)).backward()
    packed_gradients, packed_token_gradient = gradients(model), tokens.grad
    model.zero_grad()
    tokens.grad = None
    for m in range(4):
        alone = model(images, tokens[:, m : m + 1], null_memory=null_memory[:, m : m + 1])
        (functional.cross_entropy(alone[:, 0], labels) / 4).backward()

    separate = gradients(model)
    assert packed_gradients.keys() == separate.keys()
    assert set(separate) == {name for name, _ in model.named_parameters()} - {"null_image"}
    assert all(torch.allclose(packed_gradients[name], separate[name], atol=CLOSE) for name in separate)
    assert packed_token_gradient is not None
    assert tokens.grad is not None
    assert torch.allclose(packed_token_gradient, tokens.grad, atol=CLOSE)


@pytest.mark.parametrize("shape", EVERY_SHAPE)
def test_records_of_a_batch_do_not_see_each_other(shape: ModelShape) -> None:
    model, images, tokens = munkey(shape), inputs(shape, 4), exemplars(shape, 4, 2)

    alone = torch.cat([model(images[i : i + 1], tokens[i : i + 1]) for i in range(4)])

    assert torch.allclose(model(images, tokens), alone, atol=CLOSE)


@pytest.mark.parametrize("shape", SHAPES)
def test_null_memory_hides_the_exemplar_token(shape: ModelShape) -> None:
    model, images, tokens = munkey(shape), inputs(shape, 2), exemplars(shape, 2, 2)
    hidden = torch.tensor([[True, False], [False, False]])
    changed = tokens + 1.0

    before, after = (model(images, some, null_memory=hidden) for some in (tokens, changed))
    null = model.null_memory.detach().expand(2, 2, -1)

    assert torch.allclose(before[0, 0], after[0, 0], atol=CLOSE)
    assert not torch.allclose(before[0, 1], after[0, 1], atol=CLOSE)
    # The null token is read, and says nothing by itself.
    read = model(images, null) - model.memory_logits(null)
    assert torch.allclose(before[0, 0], read[0, 0], atol=CLOSE)


@pytest.mark.parametrize("shape", EVERY_SHAPE)
def test_null_image_hides_the_image_of_its_record_only(shape: ModelShape) -> None:
    model, tokens = munkey(shape), exemplars(shape, 2, 1)
    images = inputs(shape, 2)
    changed = images.flip(-1)
    hidden = torch.tensor([True, False])

    before, after = (model(some, tokens, null_image=hidden) for some in (images, changed))

    assert torch.allclose(before[0], after[0], atol=CLOSE)
    assert not torch.allclose(before[1], after[1], atol=CLOSE)
    assert torch.allclose(before[1], model(images, tokens)[1], atol=CLOSE)


@pytest.mark.parametrize("shape", SHAPES)
def test_null_tokens_are_learned(shape: ModelShape) -> None:
    model = munkey(shape)
    everything = torch.ones(2, 1, dtype=torch.bool)

    logits = model(inputs(shape, 2), exemplars(shape, 2, 1), null_memory=everything, null_image=everything[:, 0])
    logits.square().sum().backward()

    found = gradients(model)
    assert found["null_memory"].abs().sum() > 0
    assert found["null_image"].abs().sum() > 0


def test_exemplar_token_is_the_label_embedding_plus_its_offset() -> None:
    model = munkey(FROZEN)
    labels = torch.tensor([[0, 4], [1, 1]])
    offsets = exemplars(FROZEN, 2, 2)

    assert torch.equal(model.exemplars(labels, torch.zeros_like(offsets)), model.label_embedding[labels])
    assert torch.equal(model.exemplars(labels, offsets), model.label_embedding[labels] + offsets)


def test_first_weights_know_nothing_without_a_memory() -> None:
    torch.manual_seed(0)

    answers = [Munkey(shape).image_only(inputs(shape, 3)) for shape in (PATCHES, FROZEN, replace(FROZEN, depth=0))]

    assert all((answer == 1 / PATCHES.num_classes).all() for answer in answers)


def test_first_label_embeddings_are_orthogonal_so_that_a_token_speaks_for_its_own_class_only() -> None:
    torch.manual_seed(0)
    model = Munkey(FROZEN)
    classes = torch.eye(FROZEN.num_classes)

    said = model.memory_logits(model.label_embedding)

    assert torch.allclose(said, model.memory_strength * classes, atol=CLOSE)
    assert model.memory_strength > 1


def test_more_classes_than_numbers_in_a_token_still_speak_for_their_own_class_most() -> None:
    shape = replace(FROZEN, num_classes=40, exemplar_size=6, depth=0)
    torch.manual_seed(0)
    model = Munkey(shape)

    said = model.memory_logits(model.label_embedding)

    assert torch.equal(said.argmax(1), torch.arange(40))
    assert torch.allclose(said.diag(), model.memory_strength.expand(40), atol=CLOSE)
    assert model(inputs(shape, 2), exemplars(shape, 2, 3)).shape == (2, 3, 40)


@pytest.mark.parametrize("shape", EVERY_SHAPE)
def test_no_image_leaves_the_bias_of_the_linear_function_only(shape: ModelShape) -> None:
    model, images = munkey(shape), inputs(shape, 3)
    hidden = torch.tensor([True, False, True])

    seen = model.image_logits(images, hidden)

    assert torch.equal(seen[hidden], model.linear.bias.expand(2, -1))
    assert torch.equal(seen[1], model.image_logits(images)[1])
    assert (seen[1] - model.linear.bias).abs().max() > 10 * CLOSE


@pytest.mark.parametrize("shape", EVERY_SHAPE)
def test_linear_function_sees_inputs_of_mean_square_one(shape: ModelShape) -> None:
    model, images = munkey(shape), inputs(shape, 3)
    if shape.image_path is ImagePath.PATCHES:
        scaled = images.flatten(1).float() / 127.5 - 1
    else:
        # Each token has mean 0 and variance 1.
        centred = images - images.mean(2, keepdim=True)
        scaled = (centred / centred.square().mean(2, keepdim=True).sqrt()).flatten(1)
    number = torch.tensor(shape.input_shape).prod()

    expected = scaled / number.sqrt() @ model.linear.weight.T + model.linear.bias

    assert torch.allclose(model.image_logits(images), expected, atol=1e-4)


@pytest.mark.parametrize("shape", WITHOUT_BLOCKS)
def test_without_blocks_there_are_a_linear_function_and_the_memory_only(shape: ModelShape) -> None:
    model, images, tokens = munkey(shape), inputs(shape, 3), exemplars(shape, 3, 2)
    silent = torch.tensor([[True, False]] * 3)

    logits = model(images, tokens, null_memory=silent)

    assert set(model.state_dict()) == {"label_embedding", "memory_strength", "linear.weight", "linear.bias"}
    assert torch.allclose(logits[:, 0], model.image_logits(images), atol=CLOSE)
    assert torch.allclose(logits[:, 1], model.image_logits(images) + model.memory_logits(tokens[:, 1]), atol=CLOSE)


def test_state_has_no_running_statistics() -> None:
    model = munkey(PATCHES)

    assert not list(model.buffers())
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("shape", EVERY_SHAPE)
def test_ensemble_prediction_is_the_weighted_mean_of_separate_softmaxes(shape: ModelShape) -> None:
    model, images, tokens = munkey(shape), inputs(shape, 2), exemplars(shape, 2, 4)
    found = Retrieved(tokens, torch.rand(2, 4), torch.ones(2, 4, dtype=torch.bool))
    reading = Recipe.of(Settings(aggregation=AggregationName.ENSEMBLE, image_vote=False)).reading

    separate = torch.stack([model(images, tokens[:, k : k + 1])[:, 0].softmax(-1) for k in range(4)], dim=1)
    weights = vote_weights(found.present)
    expected = (separate * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)

    assert torch.allclose(model.classify(images, found, reading), expected, atol=CLOSE)


def test_image_vote_averages_the_image_alone_with_the_retrieved() -> None:
    model, images, tokens = munkey(FROZEN), inputs(FROZEN, 2), exemplars(FROZEN, 2, 1)
    found = Retrieved(tokens, torch.ones(2, 1), torch.ones(2, 1, dtype=torch.bool))
    reading = Recipe.of(Settings(aggregation=AggregationName.SOFTMAX, image_vote=True)).reading

    expected = (model(images, tokens)[:, 0].softmax(-1) + model.image_only(images)) / 2

    assert torch.allclose(model.classify(images, found, reading), expected, atol=CLOSE)


@pytest.mark.parametrize("name", AggregationName)
@pytest.mark.parametrize("image_vote", [False, True])
def test_empty_bank_predicts_from_the_image_alone(name: AggregationName, image_vote: bool) -> None:
    model, images = munkey(PATCHES), inputs(PATCHES, 2)
    found = Retrieved(exemplars(PATCHES, 2, 3), torch.full((2, 3), -torch.inf), torch.zeros(2, 3, dtype=torch.bool))
    reading = Recipe.of(Settings(aggregation=name, image_vote=image_vote)).reading

    assert torch.allclose(model.classify(images, found, reading), model.image_only(images), atol=CLOSE)


def test_prediction_weighs_members_and_can_hide_the_image() -> None:
    model, images, tokens = munkey(FROZEN), inputs(FROZEN, 2), exemplars(FROZEN, 2, 2)
    members = Members(tokens, torch.zeros(2, 2, dtype=torch.bool), torch.tensor([[0.75, 0.25], [0.0, 1.0]]))
    hidden = torch.ones(2, dtype=torch.bool)

    votes = model(images, tokens, null_image=hidden).softmax(-1)
    predicted = model.predict(images, members, null_image=hidden)

    assert torch.allclose(predicted[0], 0.75 * votes[0, 0] + 0.25 * votes[0, 1], atol=CLOSE)
    assert torch.allclose(predicted[1], votes[1, 1], atol=CLOSE)
    assert torch.allclose(predicted.sum(1), torch.ones(2), atol=CLOSE)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([(2, 2, 25), (2, 3, 6), None, None], r"inputs must be \(B, 2, 24\), not \(2, 2, 25\)"),
        ([(2, 24), (2, 3, 6), None, None], r"inputs must be \(B, 2, 24\)"),
        ([(2, 2, 24), (3, 3, 6), None, None], r"exemplars must be \(2, M, 6\) with M >= 1, not \(3, 3, 6\)"),
        ([(2, 2, 24), (2, 3, 7), None, None], "exemplars must be"),
        ([(2, 2, 24), (2, 0, 6), None, None], "exemplars must be"),
        ([(2, 2, 24), (2, 6), None, None], "exemplars must be"),
        ([(2, 2, 24), (2, 3, 6), (2, 1), None], r"null_memory must be \(2, 3\), not \(2, 1\)"),
        ([(2, 2, 24), (2, 3, 6), None, (2, 1)], r"null_image must be \(2,\), not \(2, 1\)"),
    ],
)
def test_tensor_of_the_wrong_shape_is_named(sizes: list[tuple[int, ...] | None], message: str) -> None:
    images, tokens = (torch.zeros(size) for size in sizes[:2] if size)
    null_memory, null_image = (None if size is None else torch.zeros(size, dtype=torch.bool) for size in sizes[2:])

    with pytest.raises(ValueError, match=message):
        munkey(FROZEN)(images, tokens, null_memory=null_memory, null_image=null_image)


@pytest.mark.parametrize("shape", EVERY_SHAPE)
def test_models_of_one_shape_exchange_their_weights(shape: ModelShape) -> None:
    known = ModelShape.from_json(json.loads(json.dumps(shape.to_json())))
    assert known == shape
    model, other = Munkey(shape), Munkey(known)
    other.load_state_dict(model.state_dict())

    images, tokens = inputs(shape, 2), exemplars(shape, 2, 2)
    assert torch.equal(model(images, tokens), other(images, tokens))
