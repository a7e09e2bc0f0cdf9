from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from common.encoders.descriptor import DescriptorEncoder, descriptor_feature_shape

CLOSE = 1e-5
ORIENTATIONS = 8


def images(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (28, 28), (5, 3), (33, 64), (1, 1)])
def test_keys_have_unit_length_and_the_promised_sizes(channels: int, height: int, width: int) -> None:
    encoder = DescriptorEncoder(channels)
    encoding = encoder.encode(images(6, channels, height, width))

    assert encoding.keys.shape == (6, encoder.key_size)
    assert encoding.features.shape == (6, *encoder.feature_shape)
    assert encoder.feature_shape == descriptor_feature_shape(channels)
    assert torch.allclose(encoding.keys.norm(dim=1), torch.ones(6), atol=CLOSE)


@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_plain_image_has_a_key_of_unit_length_too(level: int) -> None:
    keys = DescriptorEncoder(1).encode(torch.full((1, 1, 8, 8), level, dtype=torch.uint8)).keys

    assert keys.norm().item() == pytest.approx(1.0)


def test_each_image_is_encoded_by_itself() -> None:
    encoder, batch = DescriptorEncoder(3), images(7, 3, 28, 28)
    whole = encoder.encode(batch)

    for size in (1, 3):
        parts = encoder.encode(batch, batch_size=size)
        assert torch.allclose(parts.keys, whole.keys, atol=CLOSE)
        assert torch.allclose(parts.features, whole.features, atol=CLOSE)


def test_batches_come_one_after_the_other() -> None:
    encoder, batch = DescriptorEncoder(1), images(7, 1, 8, 8)
    parts = list(encoder.encode_in_batches(batch, batch_size=3))

    assert [len(part.keys) for part in parts] == [3, 3, 1]
    assert torch.allclose(torch.cat([part.keys for part in parts]), encoder.encode(batch).keys, atol=CLOSE)


def test_no_images_give_an_empty_encoding() -> None:
    encoder = DescriptorEncoder(1)
    encoding = encoder.encode(images(0, 1, 8, 8))

    assert encoding.keys.shape == (0, encoder.key_size)
    assert encoding.features.shape == (0, *encoder.feature_shape)


def test_features_of_a_batch_can_be_trained_on() -> None:
    layer = torch.nn.LayerNorm(12)
    for encoding in DescriptorEncoder(1).encode_in_batches(images(2, 1, 8, 8)):
        layer(encoding.features).sum().backward()

    assert layer.weight.grad is not None


@pytest.mark.parametrize(
    "wrong",
    [torch.zeros(2, 1, 8, 8), torch.zeros(2, 8, 8, dtype=torch.uint8), torch.zeros(2, 2, 8, 8, dtype=torch.uint8)],
)
def test_images_of_another_type_or_shape_are_refused(wrong: Tensor) -> None:
    with pytest.raises(ValueError, match="images must be"):
        DescriptorEncoder(1).encode(wrong)


def test_key_changes_little_with_contrast_and_much_with_content() -> None:
    encoder = DescriptorEncoder(1)
    original = (torch.arange(28) * 4).to(torch.uint8).expand(1, 1, 28, 28)
    brighter, flipped = original * 2, original.flip(-1)

    key, brighter_key, flipped_key = (encoder.encode(image).keys[0] for image in (original, brighter, flipped))

    assert float(key @ brighter_key) > 0.999
    assert float(key @ flipped_key) < 0.9


@pytest.mark.parametrize("turns", range(4))
def test_ramp_falls_into_the_bin_of_its_direction(turns: int) -> None:
    """Grey levels that rise to the right have gradient 0; each quarter turn moves it by a quarter of the bins."""
    ramp = (torch.arange(32) * 8).to(torch.uint8).expand(1, 1, 32, 32)
    features = DescriptorEncoder(1).encode(torch.rot90(ramp, turns, (2, 3))).features
    histogram = features[0, :, -ORIENTATIONS:].sum(0)

    # Rows count downwards, so a turn to the left turns the gradient from right to up, that is to a negative angle.
    angle = -turns * math.pi / 2
    expected = round((math.remainder(angle, 2 * math.pi) + math.pi) / (2 * math.pi) * ORIENTATIONS) % ORIENTATIONS

    assert int(histogram.argmax()) == expected
    assert histogram.max() / histogram.sum() > 0.99


def test_orientation_bins_share_the_whole_gradient() -> None:
    """Linear interpolation gives a direction between two bins to both, and loses nothing."""
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    angles = [0.2, 1.3, 2.9, -1.0]
    ramps = [128 + 3 * (math.cos(angle) * columns + math.sin(angle) * rows) for angle in angles]
    ramp = torch.stack([ramp - ramp.min() for ramp in ramps])[:, None].round().to(torch.uint8)

    histograms = DescriptorEncoder(1).encode(ramp).features[:, 5, -ORIENTATIONS:]

    # The slope of 3 grey levels a pixel, over the eight pixels on both sides that Sobel's smoothed difference counts.
    assert torch.allclose(histograms.sum(1), torch.full((4,), 3 * 2 / 256), rtol=0.05)


def test_feature_tokens_are_cells_in_reading_order() -> None:
    encoder, original = DescriptorEncoder(1), torch.full((1, 1, 8, 8), 100, dtype=torch.uint8)
    changed = original.clone()
    changed[0, 0, 2:4, 4:6] = 200

    before, after = (encoder.encode(image).features[0, :, :-ORIENTATIONS] for image in (original, changed))

    assert (before - after).abs().amax(1).nonzero().flatten().tolist() == [6]


def test_fingerprint_tells_channels_apart() -> None:
    assert DescriptorEncoder(1).fingerprint == DescriptorEncoder(1).fingerprint
    assert DescriptorEncoder(1).fingerprint != DescriptorEncoder(3).fingerprint
