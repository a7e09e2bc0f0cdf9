from __future__ import annotations

import pytest
import torch

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.model.encoders import encoder_names, feature_shape, make_encoder
from fedmunkey.common.model.encoders.descriptor import DescriptorEncoder
from fedmunkey.common.model.encoders.torchvision_models import TorchvisionEncoder
from fedmunkey.common.model.torchvision_import import import_torchvision
from fedmunkey.common.settings.settings import ImageShape, PoolingName, Settings

SMALL = ImageShape((1, 28, 28))
COLOUR = ImageShape((3, 224, 160))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "squeezenet1_0.pth"
    torch.manual_seed(0)
    torch.save(import_torchvision().models.squeezenet1_0(weights=None).state_dict(), path)
    return str(path)


def test_default_encoder_needs_no_weights() -> None:
    settings = Settings()
    encoder = make_encoder(settings.encoder, settings.image_shape, weights=settings.encoder_weights)

    assert isinstance(encoder, DescriptorEncoder)


def test_encoders_have_names_of_their_own() -> None:
    assert "descriptor" in encoder_names()
    assert "vit_b_16" in encoder_names()
    assert len(set(encoder_names())) == len(encoder_names())


@pytest.mark.parametrize(("image", "size", "expected"), [(SMALL, 0, 112), (COLOUR, 0, 224), (COLOUR, 64, 64)])
def test_torchvision_encoder_takes_its_size_from_the_images(
    weights: str, image: ImageShape, size: int, expected: int
) -> None:
    encoder = make_encoder("squeezenet1_0", image, weights=weights, size=size)

    assert isinstance(encoder, TorchvisionEncoder)
    assert encoder.preprocessing.size == expected


@pytest.mark.parametrize("image", [SMALL, COLOUR])
def test_feature_shape_is_known_before_the_encoder_is_built(weights: str, image: ImageShape) -> None:
    for name, file in (("descriptor", ""), ("squeezenet1_0", weights)):
        encoder = make_encoder(name, image, weights=file, size=64)
        encoding = encoder.encode(torch.zeros(1, *image, dtype=torch.uint8))

        assert feature_shape(name, image, size=64) == encoder.feature_shape == tuple(encoding.features.shape[1:])


def test_feature_shape_of_a_large_encoder_needs_no_weights() -> None:
    assert feature_shape("vit_b_16", COLOUR) == (2, 768)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("vit_b16", "did you mean vit_b_16?"),
        ("descriptors", "did you mean descriptor?"),
        ("", "use descriptor or a torchvision classification model"),
        ("qqq", "use descriptor or a torchvision classification model"),
    ],
)
def test_unknown_encoder_is_refused_with_a_suggestion(name: str, hint: str) -> None:
    for use in (make_encoder, feature_shape):
        with pytest.raises(InvalidSetting) as caught:
            use(name, SMALL)
        assert str(caught.value) == f"encoder = {name}: unknown; {hint}"


def test_descriptor_takes_no_weights(weights: str) -> None:
    with pytest.raises(InvalidSetting, match="the descriptor has no weights; name another encoder"):
        make_encoder("descriptor", COLOUR, weights=weights)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("descriptor", "encoder-pooling = grid: descriptor has no feature maps; leave it out"),
        ("vit_b_16", "encoder-pooling = grid: vit_b_16 has no feature maps; leave it out"),
        ("onnx", "encoder-pooling = grid: its card says how it is pooled; leave it out"),
    ],
)
def test_pooling_of_what_has_no_maps_is_refused(name: str, reason: str) -> None:
    with pytest.raises(InvalidSetting, match=reason):
        feature_shape(name, COLOUR, weights="model.onnx", pooling=PoolingName.GRID)


def test_pooling_decides_how_many_tokens_there_are() -> None:
    shapes = {one: feature_shape("efficientnet_lite0", COLOUR, pooling=one) for one in PoolingName}

    assert shapes == {
        PoolingName.AUTO: (2, 1280),
        PoolingName.MEAN: (1, 1280),
        PoolingName.MAXIMUM: (1, 1280),
        PoolingName.GRID: (4, 1280),
    }
