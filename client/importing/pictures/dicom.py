"""DICOM files: one frame, shown with its own window. Who the patient is, is not read.

References are to DICOM PS3.3 2024e, sections C.7.6.3 (pixels), C.11.1 (modality) and C.11.2 (window).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.multival import MultiValue
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut, apply_voi
from pydicom.uid import UID

from fedmunkey.client.importing.pictures.picture import Choices, Pixels, UnusablePicture, check_size, stretch

_NEEDED = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "VOILUTSequence",
    "VOILUTFunction",
    "WindowCenter",
    "WindowWidth",
    "PixelData",
)
"""All that is read of a data set: how pixels are stored and shown. Names, ids and dates are skipped in the file."""

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
_BYTE = 8


def read(path: Path, choices: Choices) -> Pixels:
    """Decode one grey or colour frame.

    Stored values become the modality's (rescale or table), and those become grey through the file's first window or
    table. Without either, 8-bit values stay as they are, and others reach from the picture's smallest to its largest.
    MONOCHROME1 is turned into bright on dark.
    """
    del choices
    header = dcmread(path, specific_tags=[name for name in _NEEDED if name != "PixelData"], stop_before_pixels=True)
    _check(header)
    found = dcmread(path, specific_tags=list(_NEEDED))
    if "PixelData" not in found:
        raise UnusablePicture("the DICOM file holds no picture")
    values = found.pixel_array
    if found.SamplesPerPixel != 1:
        if values.dtype != np.uint8:
            raise UnusablePicture("the colours have more than 8 bits; export them with 8")
        return values
    grey = _shown(found, values)
    return 255 - grey if found.PhotometricInterpretation == "MONOCHROME1" else grey


def _check(header: Dataset) -> None:
    """Refuse what cannot be shown, before a pixel is decoded."""
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise UnusablePicture("the DICOM file does not say how it is encoded")
    if "Rows" not in header or "Columns" not in header:
        raise UnusablePicture("the DICOM file holds no picture")
    frames = int(header.get("NumberOfFrames") or 1)
    if frames != 1:
        raise UnusablePicture(f"the DICOM file holds {frames} frames; export the one that is meant")
    check_size(int(header.Rows), int(header.Columns))
    model = str(header.get("PhotometricInterpretation", ""))
    if model not in (_GREY if int(header.get("SamplesPerPixel", 1)) == 1 else _COLOUR):
        raise UnusablePicture("the DICOM file's colour model is none that is shown; export it as monochrome or RGB")
    _check_decoder(syntax)


def _check_decoder(syntax: UID) -> None:
    if not syntax.is_compressed or syntax.is_deflated:
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        raise UnusablePicture("the DICOM file's transfer syntax is none for pictures; export it uncompressed") from None
    if not available:
        raise UnusablePicture(
            f"no decoder for the transfer syntax {syntax.name} is installed; install pylibjpeg with its plugins, or "
            "export it uncompressed"
        )


def _shown(found: Dataset, stored: NDArray[np.generic]) -> Pixels:
    """Turn stored values into grey as a viewer does at first."""
    values = np.asarray(apply_modality_lut(stored, found))
    centre, width = _first(found, "WindowCenter"), _first(found, "WindowWidth")
    if centre is not None and width is not None:
        return window(values, float(centre), float(width), str(_first(found, "VOILUTFunction") or "LINEAR"))
    if found.get("VOILUTSequence"):
        bits = int(found.VOILUTSequence[0].LUTDescriptor[2])
        return stretch(np.asarray(apply_voi(values, found), dtype=np.float64), 0.0, float(2**bits - 1))
    if found.BitsStored == _BYTE and not found.PixelRepresentation and np.array_equal(values, stored):
        return stored.astype(np.uint8)
    floats = values.astype(np.float64)
    padding = found.get("PixelPaddingValue")
    inside = floats if padding is None else floats[stored != padding]
    chosen = inside if inside.size else floats
    return stretch(floats, float(chosen.min()), float(chosen.max()))


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


def _first(found: Dataset, name: str) -> Any:
    """Return the first of an element's values, None if there is none; a second window is an alternative view."""
    value = found.get(name)
    return next(iter(value), None) if isinstance(value, MultiValue) else value
