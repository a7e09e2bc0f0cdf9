"""Pictures of any size and colour as the federation's one image shape."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fedmunkey.client.importing.pictures.picture import Pixels
from fedmunkey.common.settings.settings import ImageShape


def fit(pixels: Pixels, shape: ImageShape) -> NDArray[np.uint8]:
    """Return a picture of (H', W') or (H', W', 3) uint8 as (C, H, W) uint8.

    Colours become grey by their luma (ITU-R BT.601), grey becomes three equal channels. The whole picture is resized to
    H x W, bilinearly and over the whole area that a pixel stands for, whatever its sides were. A picture that has the
    shape already keeps every value.
    """
    channels, height, width = shape
    image = Image.fromarray(np.ascontiguousarray(pixels)).convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    values = np.asarray(image)
    return values[None].copy() if channels == 1 else np.ascontiguousarray(values.transpose(2, 0, 1))
