from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedmunkey.common.errors import InvalidWeights
from fedmunkey.common.model.checkpoints import Checkpoint, write_checkpoint
from fedmunkey.common.model.encoders.descriptor import DescriptorEncoder
from fedmunkey.common.model.model_choice import choose_device, choose_encoder, choose_shape, first_model, initial_model
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import DeviceName, ImagePath, ImageShape, Settings


def test_shape_is_that_of_the_settings() -> None:
    shape = choose_shape(Settings(num_classes=5, width=32, image_shape=ImageShape((3, 16, 16))))

    found = shape.image_path, shape.input_shape, shape.num_classes, shape.width
    assert found == (ImagePath.PATCHES, (3, 16, 16), 5, 32)


def test_frozen_path_takes_the_features_of_the_encoder() -> None:
    settings = Settings(image_path=ImagePath.FROZEN, image_shape=ImageShape((3, 16, 16)))
    encoder = choose_encoder(settings)

    assert isinstance(encoder, DescriptorEncoder)
    assert encoder.channels == 3
    assert choose_shape(settings).input_shape == encoder.feature_shape


@pytest.mark.parametrize(
    ("name", "there", "expected"),
    [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu"), ("cuda", False, "cuda")],
)
def test_auto_takes_cuda_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, name: str, there: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)

    assert choose_device(DeviceName(name)) == torch.device(expected)


def test_everyone_starts_from_the_same_weights_and_other_random_choices_are_left_alone() -> None:
    shape = choose_shape(Settings(guarantee=Guarantee.EMPIRICAL))
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, second, other = (initial_model(shape, seed) for seed in (7, 7, 8))

    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.position, second.position)
    assert torch.equal(first.null_image, second.null_image)
    assert not torch.equal(first.position, other.position)


@pytest.mark.parametrize(
    ("trained", "asked", "allowed"),
    [
        ("exact", "certified", True),
        ("certified", "certified", True),
        ("empirical", "certified", False),
        ("empirical", "empirical", True),
        (None, "certified", False),
        (None, "empirical", True),
    ],
)
def test_first_weights_are_of_no_weaker_guarantee(
    tmp_path: Path, trained: str | None, asked: str, allowed: bool
) -> None:
    path = tmp_path / "first.safetensors"
    settings = Settings(guarantee=Guarantee(asked), initial_weights=str(path))
    shape = choose_shape(settings)
    about = {} if trained is None else {"guarantee": trained}
    written = {name: torch.rand_like(value) for name, value in initial_model(shape, 5).state_dict().items()}
    write_checkpoint(path, Checkpoint(written, shape, settings.encoder, about))

    if allowed:
        found = first_model(settings, shape).state_dict()
        assert found.keys() == written.keys()
        assert all(torch.equal(found[name], written[name]) for name in written)
    else:
        with pytest.raises(InvalidWeights, match=f"trained under guarantee = {trained or 'empirical'}, weaker than"):
            first_model(settings, shape)
