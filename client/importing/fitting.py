"""Pictures of any size and colour as the federation's one image shape."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fedmunkey.client.importing.pictures.picture import Pixels, row_blocks
from fedmunkey.common.settings.settings import ImageShape


def fit(pixels: Pixels, shape: ImageShape) -> NDArray[np.uint8]:
    """Return a picture of (H', W') or (H', W', 3) uint8 as (C, H, W) uint8.

    Colours become grey by their luma (ITU-R BT.601), grey becomes three equal channels. The whole picture is resized to
    H x W, bilinearly and over the whole area that a pixel stands for, whatever its sides were. A picture that has the
    shape already keeps every value.
    """
    channels, height, width = shape
    planes = (
        [_luma(pixels)] if channels == 1 else [pixels] * 3 if pixels.ndim == 2 else [pixels[..., c] for c in range(3)]
    )
    return np.stack([_resized(plane, height, width) for plane in planes])


def _luma(pixels: Pixels) -> Pixels:
    """Return grey of a picture, some rows at a time: the library needs four bytes for each pixel in colour."""
    if pixels.ndim == 2:
        return pixels
    grey = np.empty(pixels.shape[:2], dtype=np.uint8)
    for rows in row_blocks(len(pixels), pixels.shape[1]):
        grey[rows] = np.asarray(Image.fromarray(np.ascontiguousarray(pixels[rows])).convert("L"))
    return grey


def _resized(plane: Pixels, height: int, width: int) -> NDArray[np.uint8]:
    if plane.shape == (height, width):
        return plane.copy()
    image = Image.fromarray(np.ascontiguousarray(plane))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
