"""What readers of picture files are asked for, what they give and how they say no."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fedmunkey.common.errors import InvalidInput

MOST_PIXELS = 50_000_000
"""Pixels of the largest picture that is decoded; the compressed file of a larger one may be a few bytes long."""

DEEPEST = 16
_BLOCK = 1 << 20
"""Pixels that are brought to grey at a time: as floating-point numbers they take eight times their memory."""

Pixels = NDArray[np.uint8]
"""(H, W) grey or (H, W, 3) red, green and blue, from 0 to 255."""


class UnusablePicture(Exception):  # noqa: N818
    """A file cannot be used as a picture; the message says why, and holds nothing that the file or its name holds."""


class Remark(StrEnum):
    """What a person should know of a picture that can be used."""

    FLAT = "the picture has a single grey level"
    BURNED_IN = "the file says that writing is burned into the picture, which may show who the patient is"


@dataclass(frozen=True, eq=False)
class Picture:
    """A file's pixels, and what should be known of them.

    Colours of a PNG or JPEG file stay the library's image, of mode RGB or RGBA: beside it an array would take as much
    again.
    """

    pixels: Pixels | Image.Image
    remarks: tuple[Remark, ...] = ()

    def array(self) -> Pixels:
        """Return the pixels as an array whatever they are."""
        if isinstance(self.pixels, Image.Image):
            return np.asarray(self.pixels.convert("RGB"))
        return self.pixels


@dataclass(frozen=True)
class Choices:
    """What a person chooses about files that do not say it, or hold more than one picture.

    Attributes
    ----------
    volume_slice, middle_slice
        The axial slice of a NIfTI volume, from 0 at the feet, negative numbers from the head; the middle one is the
        upper of both where their number is even.
    frame, middle_frame
        The frame of a DICOM file, from 1, or the later one of those in the middle.
    bits
        How many of the 16 bits of a PNG picture hold grey values.
    """

    volume_slice: int | None = None
    middle_slice: bool = False
    frame: int | None = None
    middle_frame: bool = False
    bits: int | None = None

    @classmethod
    def parse(cls, volume_slice: str, frame: str = "", bits: int | None = None) -> Choices:
        """Read what a person gives as --slice, --frame and --bits, or nothing; raises `InvalidInput`."""
        middle_slice, number = _middle_or_number("--slice", volume_slice)
        middle_frame, frame_number = _middle_or_number("--frame", frame)
        if frame_number is not None and frame_number < 1:
            raise InvalidInput(f"--frame {frame_number} is no frame; the first one is 1")
        if bits is not None and not 1 <= bits <= DEEPEST:
            raise InvalidInput(f"--bits {bits} is no depth of a picture; give 1 to {DEEPEST}, such as 12")
        return cls(number, middle_slice, frame_number, middle_frame, bits)


def _middle_or_number(option: str, text: str) -> tuple[bool, int | None]:
    if not text:
        return False, None
    try:
        return (True, None) if text == "middle" else (False, int(text))
    except ValueError:
        raise InvalidInput(f"{option} {text!r} is neither middle nor a whole number") from None


def check_size(*sides: int) -> None:
    """Check the size of a picture before it is decoded; raises `UnusablePicture`."""
    if min(sides) < 1:
        raise UnusablePicture("the picture has no pixel")
    if int(np.prod([int(side) for side in sides])) > MOST_PIXELS:
        raise too_large()


def too_large() -> UnusablePicture:
    """Return the refusal of a picture with more pixels than are decoded."""
    return UnusablePicture(f"the picture has more than {MOST_PIXELS // 1_000_000} million pixels; make it smaller")


def row_blocks(height: int, width: int) -> Iterator[slice]:
    """Yield a picture's rows, as many at a time as may be in memory as floating-point numbers."""
    rows = max(1, _BLOCK // max(width, 1))
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


def extrema(image: Image.Image) -> list[tuple[int, int]]:
    """Return the smallest and the largest value of each colour of an image of mode RGB or RGBA."""
    # Some rows at a time: the library copies each colour.
    parts = (image.crop((0, rows.start, image.width, rows.stop)) for rows in row_blocks(image.height, image.width))
    bounds = np.array([part.getextrema()[:3] for part in parts])
    return list(zip(bounds[..., 0].min(0).tolist(), bounds[..., 1].max(0).tolist(), strict=True))


def stretch(values: NDArray[np.generic], low: float, high: float) -> Pixels:
    """Return values as 0 to 255, `low` and what is below becoming 0, `high` and what is above 255."""
    shown = np.zeros(values.shape, dtype=np.uint8)
    if high <= low or not values.size:
        return shown
    for rows in row_blocks(len(values), values.size // len(values)):
        scaled = (values[rows].astype(np.float64) - low) / (high - low) * 255.0
        shown[rows] = np.rint(np.clip(scaled, 0.0, 255.0))
    return shown


def is_flat(values: NDArray[np.generic] | Image.Image) -> bool:
    """Return whether all values are the same."""
    if isinstance(values, Image.Image):
        return len({value for bounds in extrema(values) for value in bounds}) == 1
    return not values.size or bool(values.min() == values.max())
