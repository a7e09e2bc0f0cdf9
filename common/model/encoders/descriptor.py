"""A descriptor without parameters, for small images and for trying things out without any weights.

Each image becomes a coarse grid of grey or colour values and a grid of histograms of oriented gradients (Dalal and
Triggs 2005: gradients, orientation bins with linear interpolation, cells, normalisation), with fixed constants.

A descriptor has the same bits on every processor, whatever is encoded with it: between elementwise operations, which
IEEE 754 fixes, numbers are only added where they are whole and below 2^53, so that the order does not matter, or by
`sum_rows`. NumPy does without the threads that PyTorch starts for arrays as small as these.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmunkey.common.model.encoder_facts import EncoderFacts
from fedmunkey.common.model.encoders.encoder import Encoder, Encoding
from fedmunkey.common.model.reproducible_sums import sum_rows
from fedmunkey.common.settings.settings import DESCRIPTOR

_Numbers = NDArray[np.float64]

CELLS, ORIENTATIONS, PIXELS = 4, 8, 8
"""Cells a side and orientations of the histograms, and averages a side of the pixel grid."""

FRACTION = 2.0**20
"""Gradients are counted in steps of this fraction of a grey level: sums over 2^20 pixels are then below 2^53."""

ARC_TANGENT = (
    0.0028662257,
    -0.0161657367,
    0.0429096138,
    -0.0752896400,
    0.1065626393,
    -0.1420889944,
    0.1999355085,
    -0.3333314528,
    1.0,
)
"""Abramowitz and Stegun 1964, 4.4.49: coefficients of arctan(t) / t in powers of t^2, off by 2e-8 at most in 0..1."""


class DescriptorEncoder(Encoder):
    """Pixel grid and oriented gradients of an image of 1 or 3 channels."""

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.key_size = channels * PIXELS**2 + ORIENTATIONS * CELLS**2
        self.feature_shape = descriptor_feature_shape(channels)

    @property
    def facts(self) -> EncoderFacts:
        """Name, sizes and version of the descriptor."""
        return EncoderFacts(
            name=DESCRIPTOR,
            weights="",
            preprocessing=f"{PIXELS}x{PIXELS} averages, {ORIENTATIONS} orientations in {CELLS}x{CELLS} cells",
            fingerprint=f"{DESCRIPTOR}-2:{self.channels}x{PIXELS}:{ORIENTATIONS}x{CELLS}",
            size=0,
            key_size=self.key_size,
            feature_shape=self.feature_shape,
        )

    def encode_batch(self, images: Tensor) -> Encoding:
        """Encode (N, C, H, W) uint8 images."""
        # One grey level up, so that a black image has a direction too and its key unit length.
        levels = images.cpu().numpy().astype(np.float64) + 1
        count, channels = levels.shape[:2]
        grid = _average(levels, PIXELS) / 256
        gradients = _oriented_gradients(levels.sum(1)) / (4 * 256 * channels)
        parts = [_normalised(grid.reshape(count, -1)), _normalised(gradients.reshape(count, -1))]
        side = PIXELS // CELLS
        patches = grid.reshape(count, channels, CELLS, side, CELLS, side).transpose(0, 2, 4, 1, 3, 5)
        features = [patches.reshape(count, CELLS**2, -1), gradients.reshape(count, ORIENTATIONS, -1).swapaxes(1, 2)]
        return Encoding(
            _rounded(_normalised(np.concatenate(parts, axis=1))), _rounded(np.concatenate(features, axis=2))
        )


def descriptor_feature_shape(channels: int) -> tuple[int, int]:
    """Return tokens and numbers in each: one token for each cell, its pixels and its histogram."""
    return CELLS**2, channels * (PIXELS // CELLS) ** 2 + ORIENTATIONS


def _oriented_gradients(grey: _Numbers) -> _Numbers:
    """Average gradient magnitudes of (N, H, W) grey levels by orientation bin and cell: (N, bins, cells, cells).

    They are four times as large as those of Sobel's smoothed difference.
    """
    padded = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = padded[:, :, 2:] - padded[:, :, :-2]
    down = padded[:, 2:] - padded[:, :-2]
    horizontal = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    vertical = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    steps = np.sqrt(horizontal * horizontal + vertical * vertical) * FRACTION
    position = _angles(horizontal, vertical) / (2 * np.pi) * ORIENTATIONS
    bins = np.empty((len(grey), ORIENTATIONS, CELLS, CELLS))
    for orientation in range(ORIENTATIONS):
        distance = np.abs(position - orientation)
        share = np.maximum(1 - np.minimum(distance, ORIENTATIONS - distance), 0)
        bins[:, orientation] = _average(np.rint(share * steps), CELLS)
    return bins / FRACTION


def _angles(x: _Numbers, y: _Numbers) -> _Numbers:
    """Return the angles of vectors of whole numbers from minus the x axis on, between 0 and two pi.

    Libraries' arc tangents may differ in their last bit with the place of a number in its array.
    """
    low, high = np.minimum(np.abs(x), np.abs(y)), np.maximum(np.abs(x), np.abs(y))
    ratio = low / np.maximum(high, 1)
    square, series = ratio * ratio, np.zeros_like(ratio)
    for coefficient in ARC_TANGENT:
        series = series * square + coefficient
    angle = series * ratio
    angle = np.where(np.abs(y) > np.abs(x), np.pi / 2 - angle, angle)
    angle = np.where(x < 0, np.pi - angle, angle)
    return np.where(y < 0, np.pi - angle, np.pi + angle)


def _average(numbers: _Numbers, cells: int) -> _Numbers:
    """Average (..., H, W) whole numbers over a grid of cells, which overlap where they do not divide the image."""
    rows, columns = (windows(size, cells) for size in numbers.shape[-2:])
    sums: _Numbers = rows @ numbers @ columns.T
    counts: _Numbers = rows.sum(1)[:, None] * columns.sum(1)
    return sums / counts


def windows(size: int, cells: int) -> _Numbers:
    """Return (cells, size): one for each place that belongs to a cell."""
    cell, place = np.arange(cells)[:, None], np.arange(size)
    within = (place >= cell * size // cells) & (place * cells < (cell + 1) * size)
    return within.astype(np.float64)


def _normalised(rows: _Numbers) -> _Numbers:
    """Scale (N, d) rows to unit length; a row of zeros stays."""
    return rows / np.maximum(np.sqrt(sum_rows(rows * rows)), 1e-12)[:, None]


def _rounded(numbers: _Numbers) -> Tensor:
    return torch.from_numpy(numbers.astype(np.float32))
