"""The vision transformer without a memory is the transformer of a MUNKEY model with the memory taken away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.settings.settings import ImagePath, Settings
from fedmunkey.simulations.federation.plain_models import Examples, PlainViT, plain_site, train_plain

PATCHES = ModelShape(ImagePath.PATCHES, (1, 8, 8), 4, num_classes=3, width=16, depth=2, heads=2, exemplar_size=4)
FROZEN = replace(PATCHES, image_path=ImagePath.FROZEN, input_shape=(2, 12), patch_size=0)
SHAPES = [pytest.param(PATCHES, id="patches"), pytest.param(FROZEN, id="frozen")]
SETTINGS = Settings(num_rounds=4, local_epochs=5, batch_size=8, learning_rate=5e-3, num_classes=3)
MEMORY = {
    "null_image",
    "null_memory",
    "label_embedding",
    "memory_strength",
    "exemplar_project.weight",
    "exemplar_project.bias",
}
LINEAR = {"linear.weight", "linear.bias"}


def inputs(shape: ModelShape, count: int) -> Tensor:
    draws = torch.Generator().manual_seed(1)
    if shape.image_path is ImagePath.PATCHES:
        return torch.randint(0, 256, (count, *shape.input_shape), generator=draws, dtype=torch.uint8)
    return torch.randn(count, *shape.input_shape, generator=draws)


def plain(shape: ModelShape) -> PlainViT:
    torch.manual_seed(0)
    return PlainViT(shape)


def sizes(model: nn.Module) -> dict[str, Any]:
    return {name: tuple(weight.shape) for name, weight in model.state_dict().items()}


def train(model: PlainViT, settings: Settings = SETTINGS, number: int = 1, seed: int = 0) -> dict[str, Tensor]:
    labels = torch.arange(24) % 3
    count = train_plain(model, inputs(PATCHES, 24), labels, settings, number, torch.Generator().manual_seed(seed))
    assert count == 24
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def largest_change(shape: ModelShape, after: dict[str, Tensor]) -> float:
    before = plain(shape).state_dict()
    return max(float((after[name] - weight).abs().max()) for name, weight in before.items())


@pytest.mark.parametrize("shape", SHAPES)
def test_it_has_the_weights_of_a_munkey_models_transformer_but_for_the_memory(shape: ModelShape) -> None:
    munkey = sizes(Munkey(shape))

    assert sizes(plain(shape)) == {name: size for name, size in munkey.items() if name not in MEMORY | LINEAR}
    assert munkey.keys() >= MEMORY | LINEAR
    # It answers with one logit for each class, and has blocks where the MUNKEY model has none.
    assert plain(shape)(inputs(shape, 5)).shape == (5, 3)
    assert sizes(plain(replace(shape, depth=0))) == sizes(plain(replace(shape, depth=2)))


@pytest.mark.parametrize("shape", SHAPES)
def test_image_tokens_are_a_munkey_models(shape: ModelShape) -> None:
    model, munkey, images = plain(shape), Munkey(shape), inputs(shape, 5)
    munkey.load_state_dict(model.state_dict(), strict=False)

    ours, theirs = model.image(images) + model.position, munkey.image(images) + munkey.position
    for block, other in zip(model.blocks, munkey.blocks, strict=True):
        ours, theirs = block(ours), other(theirs)

    assert torch.equal(ours, theirs)


def test_training_fits_the_labels() -> None:
    model, images, labels = plain(PATCHES), inputs(PATCHES, 24), torch.arange(24) % 3
    before = F.cross_entropy(model(images), labels).item()

    for number in (1, 2, 3):
        train(model, number=number)

    assert F.cross_entropy(model(images), labels).item() < before / 2
    assert not model.training


def test_same_draws_give_the_same_weights() -> None:
    first, second, other = train(plain(PATCHES)), train(plain(PATCHES)), train(plain(PATCHES), seed=1)

    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_learning_rate_falls_over_the_rounds() -> None:
    changes = [largest_change(PATCHES, train(plain(PATCHES), number=number)) for number in (1, 3, 4)]

    assert changes == sorted(changes, reverse=True)
    # In the last of four rounds the rate is at (1 + cos(3/4 pi)) / 2 = 15% of its peak.
    assert changes[2] < changes[0] / 3


def test_site_draws_by_its_name_and_the_round() -> None:
    labels = torch.arange(24) % 3

    def weights(name: str, number: int) -> Tensor:
        model = plain(PATCHES)
        assert plain_site(name, Examples(inputs(PATCHES, 24), labels), SETTINGS)(model, number) == 24
        return model.head.weight.detach().clone()

    assert torch.equal(weights("hospital-1", 1), weights("hospital-1", 1))
    assert not torch.equal(weights("hospital-1", 1), weights("hospital-2", 1))
    assert not torch.equal(weights("hospital-1", 1), weights("hospital-1", 2))
