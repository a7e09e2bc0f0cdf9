"""PNG and JPEG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fedmunkey.client.importing.pictures.picture import Choices, Pixels, UnusablePicture, check_size, stretch

_LARGEST = 65_535
_GREY, _DEEP, _COLOUR = ("1", "L"), ("I", "I;16", "I;16B", "I;16L"), ("P", "RGB", "YCbCr")
_GREY_WITH_ALPHA = ("1", "L", "LA", "La")
_TRANSPARENT = ("LA", "PA", "RGBA", "La", "RGBa")


def read(path: Path, choices: Choices) -> Pixels:
    """Decode PNG of 1 to 16 bits, grey, colour or with a palette, and JPEG, turned as its camera says.

    16 bits are brought to 8 with one scale for every file, 65535 becoming 255.
    """
    del choices
    with Image.open(path, formats=("PNG", "JPEG")) as image:
        check_size(*image.size)
        if getattr(image, "n_frames", 1) != 1:
            raise UnusablePicture("the file holds several frames; export the one that is meant")
        upright = ImageOps.exif_transpose(image)
    return _values(upright)


def _values(image: Image.Image) -> Pixels:
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        return _opaque(image)
    if image.mode in _GREY:
        return np.asarray(image.convert("L"))
    if image.mode in _DEEP:
        return stretch(np.asarray(image, dtype=np.float64), 0.0, float(_LARGEST))
    if image.mode in _COLOUR:
        return np.asarray(image.convert("RGB"))
    raise UnusablePicture(f"the picture has the colour model {image.mode}; save it as grey or RGB")


def _opaque(image: Image.Image) -> Pixels:
    both = np.asarray(image.convert("RGBA"))
    if (both[..., 3] != 255).any():
        # What shows through would be a choice of ours.
        raise UnusablePicture("the picture is partly transparent; save it without an alpha channel")
    return both[..., 0].copy() if image.mode in _GREY_WITH_ALPHA else both[..., :3].copy()
