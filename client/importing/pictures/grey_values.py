"""Stored values of a DICOM picture as grey, the way a viewer shows them at first (PS3.3 C.11.1 and C.11.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_modality_lut, apply_voi

from fedmunkey.client.importing.pictures.picture import Pixels, UnusablePicture, is_flat, row_blocks, stretch

_BYTE = 8


def show(header: Dataset, stored: NDArray[np.generic]) -> Pixels:
    """Return grey values of (H, W) stored ones; raises `UnusablePicture` where the header leaves nothing to see."""
    _check_pairs(header)
    grey = _to_grey(header, stored)
    inverted = header.PhotometricInterpretation == "MONOCHROME1"
    shown = np.empty(stored.shape, dtype=np.uint8)
    for rows in row_blocks(*stored.shape):
        block = grey(stored[rows])
        shown[rows] = 255 - block if inverted else block
    if not _is_windowed(header):
        for rows in row_blocks(*stored.shape):
            shown[rows][_is_padding(header, stored[rows])] = 0
    if _is_windowed(header) and is_flat(shown) and not is_flat(stored):
        raise UnusablePicture("with the DICOM file's window or table every pixel has the same grey; correct it")
    return shown


def window(values: NDArray[np.generic], centre: float, width: float, function: str) -> Pixels:
    """Apply a window (PS3.3 C.11.2.1.2 and C.11.2.1.3), its output reaching from 0 to 255.

    Centre and width are in the unit of the values, what the modality measured; the function is `LINEAR`, `LINEAR_EXACT`
    or `SIGMOID`. Raises `UnusablePicture` if there is no such function, or the width is too small for it.
    """
    floats = values.astype(np.float64)
    narrowest = 1.0 if function == "LINEAR" else float(np.finfo(np.float64).tiny)
    if not math.isfinite(centre) or not math.isfinite(width) or width < narrowest:
        raise UnusablePicture("the DICOM file's window is not wide enough to show anything; correct it")
    if function == "LINEAR":
        if width == 1:
            return np.where(floats <= centre - 0.5, 0, 255).astype(np.uint8)
        return stretch(floats, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)
    if function == "LINEAR_EXACT":
        return stretch(floats, centre - width / 2, centre + width / 2)
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            return stretch(1 / (1 + np.exp(-4 * (floats - centre) / width)), 0.0, 1.0)
    raise UnusablePicture("the DICOM file's window has a function that is not known; export it with LINEAR")


def _check_pairs(header: Dataset) -> None:
    """Refuse what one element of two alone would leave to a guess, and a slope that makes all values equal."""
    for one, other in (("RescaleSlope", "RescaleIntercept"), ("WindowCenter", "WindowWidth")):
        values = [_first(header, name) for name in (one, other)]
        if values.count(None) == 1:
            has, lacks = (one, other) if values[1] is None else (other, one)
            raise UnusablePicture(f"the DICOM file has {has} and no {lacks}; correct it")
        if None in values:
            # Elements without a value say nothing, and pydicom would calculate with them.
            for name in (one, other):
                header.pop(name, None)
    slope = _first(header, "RescaleSlope")
    if slope is not None and not header.get("ModalityLUTSequence"):
        if not all(math.isfinite(float(_first(header, name))) for name in ("RescaleSlope", "RescaleIntercept")):
            raise UnusablePicture("the DICOM file's RescaleSlope or RescaleIntercept is no number; correct it")
        if float(slope) == 0:
            raise UnusablePicture("the DICOM file's RescaleSlope is 0, which makes every pixel the same; correct it")


def _is_windowed(header: Dataset) -> bool:
    return _first(header, "WindowCenter") is not None or bool(header.get("VOILUTSequence"))


def _to_grey(header: Dataset, stored: NDArray[np.generic]) -> Callable[[NDArray[np.generic]], Pixels]:
    """Return what makes grey of some rows of stored values."""

    def modality(values: NDArray[np.generic]) -> NDArray[np.generic]:
        return np.asarray(apply_modality_lut(values, header))

    if _first(header, "WindowCenter") is not None:
        centre, width = float(_first(header, "WindowCenter")), float(_first(header, "WindowWidth"))
        function = str(_first(header, "VOILUTFunction") or "LINEAR")
        return lambda values: window(modality(values), centre, width, function)
    if header.get("VOILUTSequence"):
        largest = float(2 ** int(header.VOILUTSequence[0].LUTDescriptor[2]) - 1)
        return lambda values: stretch(np.asarray(apply_voi(modality(values), header)), 0.0, largest)
    if _is_byte(header, stored, modality):
        return lambda values: values.astype(np.uint8)
    low, high = _range(header, stored, modality)
    return lambda values: stretch(modality(values), low, high)


def _is_byte(
    header: Dataset,
    stored: NDArray[np.generic],
    modality: Callable[[NDArray[np.generic]], NDArray[np.generic]],
) -> bool:
    """Return whether values are 8 bits that the modality leaves as they are."""
    if header.BitsStored != _BYTE or header.PixelRepresentation:
        return False
    return all(np.array_equal(modality(stored[rows]), stored[rows]) for rows in row_blocks(*stored.shape))


def _range(
    header: Dataset,
    stored: NDArray[np.generic],
    modality: Callable[[NDArray[np.generic]], NDArray[np.generic]],
) -> tuple[float, float]:
    """Return the smallest and the largest value that is no padding; of padding alone, of that."""
    lows, highs = [], []
    for rows in row_blocks(*stored.shape):
        inside = modality(stored[rows])[~_is_padding(header, stored[rows])]
        if inside.size:
            lows.append(float(inside.min()))
            highs.append(float(inside.max()))
    return (min(lows), max(highs)) if lows else (0.0, 0.0)


def _is_padding(header: Dataset, stored: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Return where values stand for no measurement: one value, or a range of them (C.7.5.1.1.2)."""
    ends = [_first(header, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if ends[0] is None:
        return np.zeros(stored.shape, dtype=np.bool_)
    found = [_as_stored(int(end), header) for end in ends if end is not None]
    low, high = min(found), max(found)
    within: NDArray[np.bool_] = np.greater_equal(stored, low) & np.less_equal(stored, high)
    return within


def _as_stored(value: int, header: Dataset) -> int:
    """Return a value as the pixels have it: some files give it without a sign where theirs have one, or the reverse."""
    bits = int(header.BitsAllocated)
    if header.PixelRepresentation and value >= 1 << (bits - 1):
        return value - (1 << bits)
    if not header.PixelRepresentation and value < 0:
        return value + (1 << bits)
    return value


def _first(header: Dataset, name: str) -> Any:
    """Return the first of an element's values, None if there is none; a second window is an alternative view."""
    value = header.get(name)
    value = next(iter(value), None) if isinstance(value, MultiValue | list) else value
    return None if value == "" else value
