"""DICOM files: one frame, shown with its own window. Who the patient is, is not read.

References are to DICOM PS3.3 2024e, sections C.7.6.3 (pixels), C.7.6.16 (frames), C.11.1 (modality), C.11.2 (window).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, JPEGExtended12Bit

from fedmunkey.client.importing.pictures.grey_values import show
from fedmunkey.client.importing.pictures.picture import Choices, Picture, Remark, UnusablePicture, check_size
from fedmunkey.client.importing.pictures.signatures import HEAD, has_preamble

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_REQUIRED = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
)
_NEEDED = (
    *_REQUIRED,
    *_PIXELS,
    "PlanarConfiguration",
    "NumberOfFrames",
    "HighBit",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "BurnedInAnnotation",
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "VOILUTSequence",
    "VOILUTFunction",
    "WindowCenter",
    "WindowWidth",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
"""All that is read of a data set: how pixels are stored and shown. Names, ids and dates are skipped in the file."""

_TRANSFORMED, _FRAME_VOI = "PixelValueTransformationSequence", "FrameVOILUTSequence"
_OF_GROUPS = {
    _TRANSFORMED: ("RescaleSlope", "RescaleIntercept"),
    _FRAME_VOI: ("WindowCenter", "WindowWidth", "VOILUTFunction"),
}
"""What is taken of the functional groups of enhanced files, in whose place the data set itself says nothing."""

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
_BYTE = 8
_LONG = 1 << 20
"""Bytes of an element that is not read before it is needed."""

_LARGE = 1 << 26
"""Bytes of a file of which not more is read than a frame."""

_INSTALL = "pip install 'fedmunkey[dicom]'"


def read(path: Path, choices: Choices) -> Picture:
    """Decode one grey or colour frame, the one that was chosen where there are several.

    Stored values become the modality's (rescale or table), and those become grey through the file's first window or
    table, as the frame's functional groups have them or else the data set. Without either, 8-bit values stay as they
    are, and others reach from the picture's smallest to its largest, padding left out. MONOCHROME1 is turned into
    bright on dark, and padding that was left out is black.
    """
    header = dcmread(path, force=True, specific_tags=list(_NEEDED), defer_size=_LONG)
    frames = _check(header)
    frame = _choose_frame(frames, choices)
    values = _decode(path, header, frame, frames)
    remarks = (Remark.BURNED_IN,) if str(header.get("BurnedInAnnotation") or "").upper() == "YES" else ()
    if header.SamplesPerPixel != 1:
        if values.dtype != np.uint8:
            raise UnusablePicture("the colours have more than 8 bits; export them with 8")
        return Picture(values.astype(np.uint8, copy=False), remarks)
    _take_from_groups(header, frame)
    return Picture(show(header, values), remarks)


def _check(header: Dataset) -> int:
    """Refuse what cannot be shown, before a pixel is decoded; return the number of frames."""
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise UnusablePicture("the DICOM file does not say how it is encoded")
    if not any(name in header for name in _PIXELS):
        raise UnusablePicture("the DICOM file holds no picture")
    missing = [name for name in _REQUIRED if header.get(name) in (None, "")]
    if missing:
        raise UnusablePicture(f"the DICOM file does not say its {missing[0]}; export it again")
    if any(name in header for name in ("FloatPixelData", "DoubleFloatPixelData")):
        raise UnusablePicture("the DICOM file's pixels are floating-point numbers; export them as whole ones")
    if header.get("HighBit") is not None and int(header.HighBit) != int(header.BitsStored) - 1:
        raise UnusablePicture(
            "the DICOM file's HighBit is not its BitsStored - 1, which the standard asks for; correct it"
        )
    check_size(int(header.Rows), int(header.Columns))
    model = str(header.PhotometricInterpretation)
    if model not in (_GREY if int(header.SamplesPerPixel) == 1 else _COLOUR):
        raise UnusablePicture("the DICOM file's colour model is none that is shown; export it as monochrome or RGB")
    _check_decoder(syntax, int(header.BitsStored))
    return int(header.get("NumberOfFrames") or 1)


def _check_decoder(syntax: UID, bits: int) -> None:
    if not syntax.is_compressed or syntax.is_deflated:
        return
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise UnusablePicture("the DICOM file's transfer syntax is none for pictures; export it uncompressed") from None
    plugins = set(decoder.available_plugins)
    way_out = f"{_INSTALL}, or export it uncompressed"
    if syntax == JPEGExtended12Bit and bits > _BYTE:
        # These are named for this syntax and know its 8-bit form only.
        plugins -= {"pillow", "gdcm"}
        way_out = "export it uncompressed, or install pylibjpeg-libjpeg (GPL)"
    if not plugins:
        depth = " of more than 8 bits" if syntax == JPEGExtended12Bit else ""
        raise UnusablePicture(f"no decoder for the transfer syntax {syntax.name}{depth} is installed; {way_out}")


def _choose_frame(frames: int, choices: Choices) -> int:
    """Return which frame, counted from 0."""
    if frames < 1:
        raise UnusablePicture("the picture has no pixel")
    if frames == 1:
        return 0
    if choices.middle_frame:
        return frames // 2
    if choices.frame is None:
        raise UnusablePicture(f"the DICOM file holds {frames} frames; choose one with --frame, or export it alone")
    if choices.frame > frames:
        raise UnusablePicture(f"the DICOM file holds {frames} frames, fewer than --frame asks for")
    return choices.frame - 1


def _decode(path: Path, header: Dataset, frame: int, frames: int) -> NDArray[np.generic]:
    """Read one frame; of a large file no other, where that can be."""
    index = frame if frames > 1 else None
    with path.open("rb") as file:
        plain = has_preamble(file.read(HEAD)) and not header.file_meta.TransferSyntaxUID.is_deflated
    try:
        if plain and path.stat().st_size > _LARGE:
            return np.asarray(pixel_array(path, index=index, view_only=True))
        whole = dcmread(path, force=True, specific_tags=list(_NEEDED))
        return np.asarray(pixel_array(whole, index=index, view_only=True))
    except RuntimeError:
        # What pydicom raises when every decoder has failed.
        raise UnusablePicture(
            "its compressed pixels are damaged, or written in a way that no decoder here knows; export it uncompressed"
        ) from None


def _take_from_groups(header: Dataset, frame: int) -> None:
    """Put what the functional groups say of a frame where a file of one picture says it."""
    shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
    of_frames = header.get("PerFrameFunctionalGroupsSequence") or []
    own = of_frames[frame] if frame < len(of_frames) else None
    for group, names in _OF_GROUPS.items():
        found = next((item[group].value for item in (own, shared) if item is not None and item.get(group)), None)
        if not found:
            continue
        for name in names:
            if name in found[0]:
                header[name] = found[0][name]
            elif name in header:
                del header[name]
