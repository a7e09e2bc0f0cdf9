from __future__ import annotations

import numpy as np

from fedmunkey.client.importing.fitting import fit
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
