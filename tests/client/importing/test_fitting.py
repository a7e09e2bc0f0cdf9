from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fedmunkey.client.importing.fitting import fit
from fedmunkey.client.importing.pictures import picture as pictures
from fedmunkey.common.settings.settings import ImageShape


def test_picture_of_the_shape_keeps_every_value() -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    colour = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)

    assert np.array_equal(fit(grey, ImageShape((1, 8, 8))), grey[None])
    assert np.array_equal(fit(colour, ImageShape((3, 8, 8))), colour.transpose(2, 0, 1))


def test_grey_becomes_three_equal_channels() -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)

    assert np.array_equal(fit(grey, ImageShape((3, 8, 8))), np.stack([grey] * 3))


def test_colours_become_grey_by_their_luma() -> None:
    primaries = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]]], dtype=np.uint8)

    # ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B.
    assert fit(primaries, ImageShape((1, 1, 4))).tolist() == [[[76, 150, 29, 90]]]


def test_shrinking_averages_instead_of_skipping() -> None:
    # Lines a pixel wide: whoever picks every fourth sees only black or only white.
    lines = np.tile(np.array([0, 255], dtype=np.uint8), (64, 32))

    found = fit(lines, ImageShape((1, 16, 16)))

    assert found.shape == (1, 16, 16)
    assert np.abs(found.astype(int) - 127).max() <= 12


def test_height_and_width_are_not_mixed_up() -> None:
    tall = np.repeat(np.linspace(0, 255, 40, dtype=np.uint8)[:, None], 10, axis=1)

    found = fit(tall, ImageShape((1, 20, 5)))

    assert found.shape == (1, 20, 5)
    assert (np.diff(found[0].astype(int), axis=0) > 0).all()
    assert not np.ptp(found[0], axis=1).any()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["L", "RGB", "RGBA"])
def test_parts_of_a_picture_give_what_the_whole_gives(
    monkeypatch: pytest.MonkeyPatch, kind: str, channels: int
) -> None:
    """Of a large picture some rows are resized at a time."""
    monkeypatch.setattr(pictures, "_BLOCK", 7 * 61)
    noise = np.random.default_rng(3).integers(0, 256, (53, 61, 3), dtype=np.uint8)
    image = Image.fromarray(noise).convert(kind)
    whole = image.convert("L" if channels == 1 or kind == "L" else "RGB").resize((19, 23), Image.Resampling.BILINEAR)
    expected = np.asarray(whole).reshape(23, 19, -1).transpose(2, 0, 1)

    found = fit(np.asarray(image) if kind == "L" else image, ImageShape((channels, 23, 19)))

    assert np.array_equal(found, np.broadcast_to(expected, (channels, 23, 19)))
    if kind == "RGB":
        assert np.array_equal(fit(noise, ImageShape((channels, 23, 19))), found)


@pytest.mark.parametrize("kind", ["RGB", "RGBA"])
def test_picture_of_one_colour_value_is_flat_and_any_other_is_not(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(pictures, "_BLOCK", 16)
    image = Image.new(kind, (8, 8), (90, 90, 90))
    spotted = image.copy()
    spotted.putpixel((3, 7), (90, 91, 90))

    assert pictures.is_flat(image)
    assert not pictures.is_flat(spotted)
    assert not pictures.is_flat(Image.new(kind, (8, 8), (90, 90, 91)))
