"""What readers of picture files are asked for, what they give and how they say no."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmunkey.common.errors import InvalidInput

MOST_PIXELS = 50_000_000
"""Pixels of the largest picture that is decoded; the compressed file of a larger one may be a few bytes long."""

Pixels = NDArray[np.uint8]
"""(H, W) grey or (H, W, 3) red, green and blue, from 0 to 255."""


class UnusablePicture(Exception):  # noqa: N818
    """A file cannot be used as a picture; the message says why, and holds nothing that the file or its name holds."""


@dataclass(frozen=True)
class Choices:
    """What a person chooses about files that hold more than one picture.

    The slice of a NIfTI volume is counted from 0 at the feet, negative numbers from the head; the middle one is the
    upper of both where their number is even.
    """

    volume_slice: int | None = None
    middle_slice: bool = False

    @classmethod
    def parse(cls, text: str) -> Choices:
        """Read what a person gives as --slice: `middle` or a whole number, or nothing; raises `InvalidInput`."""
        if not text:
            return cls()
        try:
            return cls(middle_slice=True) if text == "middle" else cls(volume_slice=int(text))
        except ValueError:
            raise InvalidInput(f"--slice {text!r} is neither middle nor a whole number") from None


def check_size(*sides: int) -> None:
    """Check the size of a picture before it is decoded; raises `UnusablePicture`."""
    if min(sides) < 1:
        raise UnusablePicture("the picture has no pixel")
    if int(np.prod([int(side) for side in sides])) > MOST_PIXELS:
        raise UnusablePicture(f"the picture has more than {MOST_PIXELS // 1_000_000} million pixels; make it smaller")


def stretch(values: NDArray[np.floating], low: float, high: float) -> Pixels:
    """Return values as 0 to 255, `low` and what is below becoming 0, `high` and what is above 255."""
    if high <= low:
        return np.zeros(values.shape, dtype=np.uint8)
    shown = (values.astype(np.float64) - low) / (high - low) * 255.0
    return np.rint(np.clip(shown, 0.0, 255.0)).astype(np.uint8)
