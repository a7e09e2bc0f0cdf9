from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedmunkey.common.model.encoders import Encoding
from fedmunkey.common.model.encoders.descriptor import DescriptorEncoder, _angles, descriptor_feature_shape

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
    plain = torch.tensor([0, 1, 128, 255], dtype=torch.uint8).view(4, 1, 1, 1).expand(4, channels, height, width)
    assert torch.allclose(encoder.encode(plain).keys.norm(dim=1), torch.ones(4), atol=CLOSE)


def assert_same(left: Encoding, right: Encoding) -> None:
    assert torch.equal(left.keys, right.keys)
    assert torch.equal(left.features, right.features)


# Sides that are no multiple of a processor's vectors, so that numbers stand in other places of a batch than alone.
@settings(max_examples=30)
@given(data=st.data(), channels=st.sampled_from([1, 3]), height=st.integers(1, 21), width=st.integers(1, 21))
def test_image_has_the_same_bits_whatever_is_encoded_with_it(
    data: st.DataObject, channels: int, height: int, width: int
) -> None:
    encoder, batch = DescriptorEncoder(channels), images(9, channels, height, width)
    whole = encoder.encode(batch)

    order = torch.tensor(data.draw(st.permutations(range(9))))
    assert_same(encoder.encode(batch[order], batch_size=4), Encoding(whole.keys[order], whole.features[order]))
    assert_same(encoder.encode(batch, batch_size=1), whole)
    assert_same(encoder.encode(batch.contiguous(memory_format=torch.channels_last)), whole)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_do_not_change_the_bits(threads: int) -> None:
    encoder, batch = DescriptorEncoder(3), images(5, 3, 119, 101)
    whole = encoder.encode(batch)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert_same(encoder.encode(batch), whole)
    finally:
        torch.set_num_threads(before)


def test_angles_are_arc_tangents() -> None:
    x, y = np.random.default_rng(0).integers(-40, 41, (2, 500)).astype(np.float64)

    difference = np.abs(_angles(x, y) - (np.arctan2(y, x) + np.pi))[(x != 0) | (y != 0)]

    # Half a turn to either side is the same direction.
    assert np.minimum(difference, 2 * np.pi - difference).max() < 3e-8


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
