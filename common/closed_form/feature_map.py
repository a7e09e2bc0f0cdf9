"""What a linear function reads of a record: whole numbers, so that sums of their products are the same in any order.

The encoder's frozen features, each token normalised to mean 0 and variance 1 and all divided by the root of their
number, then cosines of random projections of the key, then a constant; times 2^14 and rounded once. The projections
are drawn from a public seed. They are added as whole numbers too, and their cosines read from a table: a record's
numbers have the same bits whatever is read beside it, on every processor.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.model.reproducible_sums import sum_rows

Numbers = NDArray[np.float64]

SCALE_BITS = 14
SCALE = 2.0**SCALE_BITS
"""A number of size 1 becomes this one; none becomes larger, so products are at most 2^28."""

CONSTANT = round(0.3 * SCALE)
"""What stands for the constant: small, so that the ridge holds back what it adds."""

KERNEL_WIDTH = 0.2
"""Two keys of cosine c have the kernel exp((c - 1) / width), to which products of their cosines come close."""

EPSILON = 1e-5
"""Added to a token's variance."""

_KEY_BITS = 14
_TURN_BITS = 18
_TABLE_BITS = 16
_SEED = 20260315
_MOST_KEY_NUMBERS = 2**16
"""Above, sums of a projection could reach 2^53."""


@dataclass(frozen=True)
class FeatureMap:
    """Which numbers are read: `features` of the encoder, in tokens of some size, and `random` cosines of the key."""

    features: tuple[int, int]
    random: int

    @classmethod
    def of(cls, recipe: Recipe, shape: ModelShape) -> FeatureMap:
        """Return what a federation reads; on the `patches` path a record has no frozen features."""
        return cls(shape.features, recipe.random_features)

    @property
    def size(self) -> int:
        """How many numbers a record has, the constant among them."""
        return self.features[0] * self.features[1] + self.random + 1

    def read(self, keys: NDArray[np.float32], features: NDArray[np.float32]) -> Numbers:
        """Return (n, size) whole numbers of n records: (n, key_size) keys and (n, tokens, numbers) features.

        Features are not looked at where none are read. Raises `InvalidSetting` if keys are too long to be projected
        exactly.
        """
        read = np.empty((len(keys), self.size))
        frozen = self.features[0] * self.features[1]
        if frozen:
            read[:, :frozen] = np.rint(_normalised(features).reshape(len(keys), frozen) * (SCALE / np.sqrt(frozen)))
        if self.random:
            read[:, frozen:-1] = random_features(keys, self.random)
        read[:, -1] = CONSTANT
        return read


def random_features(keys: NDArray[np.float32], count: int) -> Numbers:
    """Return (n, count) whole numbers, cosines times 2^14 sqrt(2 / count): Rahimi and Recht 2007, algorithm 1.

    Products of two rows, over 2^28, come close to exp((cosine - 1) / `KERNEL_WIDTH`) of their unit-length keys.
    """
    if keys.shape[1] > _MOST_KEY_NUMBERS:
        raise InvalidSetting(f"keys of {keys.shape[1]} numbers have no random features; set random-features = 0")
    projection, offsets = _projection(keys.shape[1], count)
    whole = np.rint(keys.astype(np.float64) * 2.0**_KEY_BITS)
    # Turns in 2^-32: whole numbers below 2^53 that are added exactly, in whatever order.
    turns = (whole @ projection).astype(np.int64) + offsets
    place = (turns >> (_KEY_BITS + _TURN_BITS - _TABLE_BITS)) & (2**_TABLE_BITS - 1)
    numbers: Numbers = _cosines(count)[place]
    return numbers


@dataclass(frozen=True)
class RandomProjection:
    """How `random_features` reads a key, for whoever computes it elsewhere.

    `cosines[floor((round(key * key_scale) @ frequencies + phases) / step) mod len(cosines)]`: (size, count)
    frequencies, (count,) phases, both whole, and the table of cosines.
    """

    frequencies: Numbers
    phases: Numbers
    cosines: Numbers
    key_scale: float = 2.0**_KEY_BITS
    step: float = 2.0 ** (_KEY_BITS + _TURN_BITS - _TABLE_BITS)

    @classmethod
    def of(cls, size: int, count: int) -> RandomProjection:
        """Return that of keys with so many numbers, for so many features."""
        frequencies, phases = _projection(size, count)
        return cls(frequencies, phases.astype(np.float64), _cosines(count))


@lru_cache(maxsize=4)
def _projection(size: int, count: int) -> tuple[Numbers, NDArray[np.int64]]:
    """Return (size, count) frequencies and (count,) phases, in whole parts of a turn.

    `RandomState` is NumPy's generator whose numbers stay the same in all versions.
    """
    drawn = np.random.RandomState(_SEED)
    frequencies = drawn.standard_normal((count, size)).T / (2 * np.pi * np.sqrt(KERNEL_WIDTH))
    phases = drawn.random_sample(count)
    return np.rint(frequencies * 2.0**_TURN_BITS), np.rint(phases * 2.0 ** (_KEY_BITS + _TURN_BITS)).astype(np.int64)


@lru_cache(maxsize=4)
def _cosines(count: int) -> Numbers:
    turns = np.arange(2**_TABLE_BITS) / 2**_TABLE_BITS
    table: Numbers = np.rint(np.cos(2 * np.pi * turns) * (SCALE * np.sqrt(2 / count)))
    return table


def _normalised(features: NDArray[np.float32]) -> Numbers:
    """Give each token mean 0 and variance 1 (Ba et al. 2016, without gain and bias)."""
    count, tokens, size = features.shape
    wide = features.astype(np.float64).reshape(count * tokens, size)
    wide -= sum_rows(wide.copy())[:, None] / size
    wide /= np.sqrt(sum_rows(wide * wide) / size + EPSILON)[:, None]
    return wide
