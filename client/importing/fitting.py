"""Pictures of any size and colour as the federation's one image shape."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fedmunkey.client.importing.pictures.picture import Pixels, row_blocks
from fedmunkey.common.settings.settings import ImageShape


def fit(pixels: Pixels | Image.Image, shape: ImageShape) -> NDArray[np.uint8]:
    """Return a picture of (H', W') or (H', W', 3) uint8, or an image of mode RGB or RGBA, as (C, H, W) uint8.

    Colours become grey by their luma (ITU-R BT.601), grey becomes three equal channels. The whole picture is resized to
    H x W, bilinearly and over the whole area that a pixel stands for, whatever its sides were. A picture that has the
    shape already keeps every value.
    """
    channels, height, width = shape
    grey = channels == 1 or (not isinstance(pixels, Image.Image) and pixels.ndim == 2)
    # First to the width, some rows at a time, then to the height, as the library does it: whole, a picture in colour
    # would be in memory several times.
    rows, columns = pixels.size[::-1] if isinstance(pixels, Image.Image) else pixels.shape[:2]
    narrow = [
        np.asarray(_strip(pixels, part, "L" if grey else "RGB").resize(size, Image.Resampling.BILINEAR))
        for part in row_blocks(rows, columns)
        for size in [(width, part.stop - part.start)]
    ]
    fitted = np.asarray(Image.fromarray(np.concatenate(narrow)).resize((width, height), Image.Resampling.BILINEAR))
    return np.repeat(fitted[None], channels, axis=0) if grey else np.ascontiguousarray(fitted.transpose(2, 0, 1))


def _strip(pixels: Pixels | Image.Image, rows: slice, mode: str) -> Image.Image:
    """Return some rows of a picture as an image of a mode."""
    if isinstance(pixels, Image.Image):
        return pixels.crop((0, rows.start, pixels.width, rows.stop)).convert(mode)
    return Image.fromarray(np.ascontiguousarray(pixels[rows])).convert(mode)
