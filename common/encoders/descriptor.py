"""A descriptor without parameters, for small images and for trying things out without any weights.

Each image becomes a coarse grid of grey or colour values and a grid of histograms of oriented gradients (Dalal and
Triggs 2005: gradients, orientation bins with linear interpolation, cells, normalisation), with fixed constants.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from common.encoders.encoder import Encoder, Encoding

_CELLS = 4
_ORIENTATIONS = 8
_PIXELS = 8


class DescriptorEncoder(Encoder):
    """Pixel grid and oriented gradients of an image.

    Parameters
    ----------
    channels : int
        1 or 3.
    """

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.key_size = channels * _PIXELS**2 + _ORIENTATIONS * _CELLS**2
        self.feature_shape = descriptor_feature_shape(channels)

    @property
    def fingerprint(self) -> str:
        """Name, sizes and version of the descriptor."""
        return f"descriptor-1:{self.channels}x{_PIXELS}:{_ORIENTATIONS}x{_CELLS}"

    def encode_batch(self, images: Tensor) -> Encoding:
        """Encode (N, C, H, W) uint8 images."""
        # One grey level up, so that a black image has a direction too and its key unit length.
        pixels = (images.float() + 1) / 256
        grid = functional.adaptive_avg_pool2d(pixels, _PIXELS)
        gradients = functional.adaptive_avg_pool2d(_oriented_gradients(pixels.mean(1, keepdim=True)), _CELLS)
        parts = [functional.normalize(grid.flatten(1), dim=1), functional.normalize(gradients.flatten(1), dim=1)]
        side = _PIXELS // _CELLS
        patches = functional.unfold(grid, side, stride=side)
        features = torch.cat([patches, gradients.flatten(2)], dim=1).transpose(1, 2)
        return Encoding(functional.normalize(torch.cat(parts, dim=1), dim=1), features)


def descriptor_feature_shape(channels: int) -> tuple[int, int]:
    """Return tokens and numbers in each: one token for each cell, its pixels and its histogram."""
    return _CELLS**2, channels * (_PIXELS // _CELLS) ** 2 + _ORIENTATIONS


def _oriented_gradients(grey: Tensor) -> Tensor:
    """Spread gradient magnitudes over orientation bins: (N, 1, H, W) to (N, orientations, H, W)."""
    sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 4
    kernels = torch.stack([sobel, sobel.T])[:, None].to(grey)
    horizontal, vertical = functional.conv2d(functional.pad(grey, (1, 1, 1, 1), mode="replicate"), kernels).unbind(1)
    position = (torch.atan2(vertical, horizontal) + math.pi) / (2 * math.pi) * _ORIENTATIONS
    bins = torch.arange(_ORIENTATIONS, device=grey.device)[None, :, None, None]
    half = _ORIENTATIONS / 2
    distance = ((position[:, None] - bins + half) % _ORIENTATIONS - half).abs()
    return (1 - distance).clamp_min(0) * torch.hypot(horizontal, vertical)[:, None]
