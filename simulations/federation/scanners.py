"""Scanners that differ between simulated hospitals: brightness, contrast and blur, on images before they are encoded.

With blur b and gain g in 256ths and offset o in grey levels, a pixel x with its 3x3 surroundings under the binomial
kernel (1 2 1)^T (1 2 1), whose sum is s, becomes

    m = (16 (256 - b) x + b s + 2048) >> 12
    clip(((g m + 128) >> 8) + o, 0, 255)

in whole numbers, so that every machine makes the same bytes. Edges are continued outwards.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.records.dataset import BATCH, Dataset, Split
from fedmunkey.common.model.randomness import derive_seed

_ONE = 256
_MOST_GAIN, _MOST_OFFSET = 128, 48


@dataclass(frozen=True)
class Scanner:
    """What a hospital's scanner does to an image: gain and blur in 256ths, offset in grey levels."""

    gain: int
    offset: int
    blur: int

    @classmethod
    def draw(cls, hospital: int, strength: float, seed: int) -> Scanner:
        """Draw the scanner of a hospital, from 0, uniformly.

        At a strength of 1 gains are from 0.5 to 1.5, offsets from -48 to 48, and the blurred image has a share from 0
        to 1; at a strength of 0 nothing changes.
        """
        generator = np.random.default_rng(derive_seed(seed, "scanners", hospital))
        gain = int(generator.integers(-_MOST_GAIN, _MOST_GAIN + 1))
        offset = int(generator.integers(-_MOST_OFFSET, _MOST_OFFSET + 1))
        blur = int(generator.integers(0, _ONE + 1))
        return cls(_ONE + round(strength * gain), round(strength * offset), round(strength * blur))

    def scan(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return (n, C, H, W) images as this scanner takes them."""
        sharp = images.astype(np.int32)
        around = np.pad(sharp, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        rows = around[:, :, :-2] + 2 * around[:, :, 1:-1] + around[:, :, 2:]
        blurred = rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]
        mixed = (16 * (_ONE - self.blur) * sharp + self.blur * blurred + 2048) >> 12
        scanned: NDArray[np.uint8] = np.clip(((self.gain * mixed + 128) >> 8) + self.offset, 0, 255).astype(np.uint8)
        return scanned


def as_scanned(dataset: Dataset, homes: NDArray[np.int64], hospitals: int, strength: float, seed: int) -> Dataset:
    """Return records with images as the scanners of their hospitals take them.

    At a strength of 0 these are the images as they are. `homes` (n,) has each training record's hospital. Held-out
    records have no home: those of each split go over all hospitals' scanners in turn, so that a federation is tested on
    what its hospitals will see.
    """
    if not strength:
        return dataset
    taken_by = homes.copy()
    for split in (Split.VAL, Split.TEST):
        rows = np.flatnonzero(dataset.splits == split.value)
        taken_by[rows] = np.arange(len(rows)) % hospitals
    images = np.empty_like(dataset.images)
    order = np.argsort(taken_by, kind="stable")
    for hospital, rows in enumerate(np.split(order, np.searchsorted(taken_by[order], np.arange(1, hospitals)))):
        scanner = Scanner.draw(hospital, strength, seed)
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            images[some] = scanner.scan(dataset.images[some])
    return dataclasses.replace(dataset, images=images)
