"""How what a model answers for one image becomes feature tokens."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import torch
from torch import Tensor

_SIDE = 2
"""Cells a side of a grid."""


class Pooling(StrEnum):
    """How a model's output becomes feature tokens."""

    MEAN_AND_MAXIMUM = "mean-and-maximum"
    """Feature maps (1, C, H, W): two tokens, mean and maximum over space."""
    MEAN = "mean"
    """Feature maps: one token, the mean over space."""
    MAXIMUM = "maximum"
    """Feature maps: one token, the maximum over space."""
    GRID = "grid"
    """Feature maps: four tokens, the means of a grid of two by two cells."""
    CLASS_TOKEN = "class-token"  # noqa: S105
    """Tokens (1, T, C) of a vision transformer: two, the first and the mean of the others."""
    NONE = "none"
    """A vector (1, C) is the one token as it is."""

    @property
    def dimensions(self) -> int:
        """Dimensions of an output that it takes."""
        return {Pooling.CLASS_TOKEN: 3, Pooling.NONE: 2}.get(self, 4)

    @property
    def tokens(self) -> int:
        """How many tokens it makes."""
        return {Pooling.MEAN_AND_MAXIMUM: 2, Pooling.GRID: _SIDE**2, Pooling.CLASS_TOKEN: 2}.get(self, 1)

    @property
    def words(self) -> str:
        """What it does, as an encoder's facts say it."""
        return _WORDS[self]

    @property
    def chosen(self) -> str:
        """Its name where it is not what an encoder takes by itself; empty where it is."""
        return self.value if self in (Pooling.MEAN, Pooling.MAXIMUM, Pooling.GRID) else ""

    def pool(self, output: Tensor) -> Tensor:
        """Return (1, tokens, size) of a model's output for one image."""
        return _POOLED[self](output)

    def key(self, features: Tensor) -> Tensor:
        """Return (1, key_size) of (1, tokens, size) features: all in a row, or the class token; of any length."""
        return features[:, 0] if self is Pooling.CLASS_TOKEN else features.flatten(1)

    def key_size(self, size: int) -> int:
        """Return how many numbers a key has, of tokens of a size."""
        return size if self is Pooling.CLASS_TOKEN else self.tokens * size


OF_MAPS = (Pooling.MEAN_AND_MAXIMUM, Pooling.MEAN, Pooling.MAXIMUM, Pooling.GRID)
"""Those that feature maps can be pooled by; the first is taken where nobody says otherwise."""

_WORDS = {
    Pooling.MEAN_AND_MAXIMUM: "mean and maximum over space",
    Pooling.MEAN: "mean over space",
    Pooling.MAXIMUM: "maximum over space",
    Pooling.GRID: "means of 2 by 2 cells",
    Pooling.CLASS_TOKEN: "class token and mean of the others",
    Pooling.NONE: "the vector as it is",
}


def mean_and_maximum(maps: Tensor) -> Tensor:
    """Return two tokens of (N, C, H, W) feature maps, (N, 2, C): mean and maximum over space."""
    return torch.stack([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)


def grid(maps: Tensor) -> Tensor:
    """Return (N, 4, C) means of cells row by row; where two cells do not divide the maps they overlap."""
    if not torch.onnx.is_in_onnx_export():
        return torch.nn.functional.adaptive_avg_pool2d(maps, _SIDE).flatten(2).transpose(1, 2)
    # ONNX knows adaptive pooling only where cells divide the maps.
    rows, columns = (_windows(int(length)) for length in maps.shape[2:])
    return torch.stack([maps[:, :, row, column].mean((2, 3)) for row in rows for column in columns], dim=1)


def _windows(length: int) -> list[slice]:
    return [slice(cell * length // _SIDE, -(-(cell + 1) * length // _SIDE)) for cell in range(_SIDE)]


_POOLED: dict[Pooling, Callable[[Tensor], Tensor]] = {
    Pooling.MEAN_AND_MAXIMUM: mean_and_maximum,
    Pooling.MEAN: lambda maps: maps.mean((2, 3)).unsqueeze(1),
    Pooling.MAXIMUM: lambda maps: maps.amax((2, 3)).unsqueeze(1),
    Pooling.GRID: grid,
    Pooling.CLASS_TOKEN: lambda tokens: torch.stack([tokens[:, 0], tokens[:, 1:].mean(1)], dim=1),
    Pooling.NONE: lambda vector: vector.unsqueeze(1),
}
