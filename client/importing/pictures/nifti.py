"""NIfTI files: a flat image, or one slice of a volume, turned as an axial DICOM slice is shown."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

from fedmunkey.client.importing.pictures.picture import Choices, Pixels, UnusablePicture, check_size, stretch
from fedmunkey.client.importing.pictures.signatures import GZIP, HEAD, nifti_version

_SECOND = 2
_UP = 2
"""The axis of nibabel's RAS+ space (right, front, up) that axial slices are stacked along."""


def read(path: Path, choices: Choices) -> Pixels:
    """Decode one slice of a NIfTI-1 or NIfTI-2 file, gzipped or not, by what it holds: nibabel would go by the name.

    Of a volume it is the axial one that was chosen. It is turned as DICOM shows it: the patient's right, or the front
    of a sagittal slice, at the left; the front, or the head, at the top. Values become grey through the header's
    display range (cal_min, cal_max). Without one, unscaled 8-bit values stay as they are, and others reach from the
    slice's smallest to its largest. What is not a number is as dark as the smallest.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    with gzip.open(path) if head.startswith(GZIP) else path.open("rb") as stream:
        kind = nibabel.Nifti2Image if nifti_version(head) == _SECOND else nibabel.Nifti1Image
        image = kind.from_stream(stream)
        _check_kind(image.get_data_dtype())
        values = _slice(image, choices)
    proxy: Any = image.dataobj
    as_stored = image.get_data_dtype() == np.uint8 and (proxy.slope, proxy.inter) == (1.0, 0.0)
    return _shown(values, float(image.header["cal_min"]), float(image.header["cal_max"]), as_stored)


def _check_kind(kind: np.dtype[Any]) -> None:
    if kind.fields is not None:
        raise UnusablePicture("the NIfTI file holds colours; export it as grey, or as PNG")
    if np.issubdtype(kind, np.complexfloating):
        raise UnusablePicture("the NIfTI file holds complex numbers; export their magnitude")


def _slice(image: Any, choices: Choices) -> NDArray[np.float64]:
    """Read (H, W) values; of an uncompressed file, hardly more of it than the slice."""
    shape = [int(side) for side in image.shape]
    if len(shape) < 2 or any(side != 1 for side in shape[3:]):
        raise UnusablePicture(f"the NIfTI file has {len(shape)} dimensions; export one volume")
    turned = io_orientation(image.affine)
    if not np.isfinite(turned).all():
        raise UnusablePicture("the NIfTI file does not say how it is oriented; correct its affine")
    sides = [*shape, 1][:3]
    flat = [axis for axis in range(3) if sides[axis] == 1]
    across = flat[-1] if flat else int(np.flatnonzero(turned[:, 0] == _UP)[0])
    plane = sorted((axis for axis in range(3) if axis != across), key=lambda axis: float(turned[axis, 0]))
    check_size(*(sides[axis] for axis in plane))
    place = _place(sides[across], choices)
    if turned[across, 1] < 0:
        place = sides[across] - 1 - place
    index = [place if axis == across else slice(None) for axis in range(3)] + [0] * (len(shape) - 3)
    values = np.asarray(image.dataobj[tuple(index[: len(shape)])], dtype=np.float64)
    if plane[0] > plane[1]:
        values = values.T
    # Axes count towards right, front and head, or the other way; shown are they from there.
    for axis, which in enumerate(plane):
        values = np.flip(values, axis) if turned[which, 1] > 0 else values
    return np.ascontiguousarray(values.T)


def _place(depth: int, choices: Choices) -> int:
    """Return which slice, counted from the feet."""
    if depth == 1:
        return 0
    if choices.middle_slice:
        return depth // 2
    if choices.volume_slice is None:
        raise UnusablePicture(f"the NIfTI file holds {depth} slices; choose one with --slice")
    if not -depth <= choices.volume_slice < depth:
        raise UnusablePicture(f"the NIfTI file holds {depth} slices, fewer than --slice asks for")
    return choices.volume_slice % depth


def _shown(values: NDArray[np.float64], low: float, high: float, as_stored: bool) -> Pixels:
    known = values[np.isfinite(values)]
    if not known.size:
        raise UnusablePicture("the slice holds no number")
    if high > low:
        return stretch(np.nan_to_num(values, nan=low), low, high)
    if as_stored:
        return values.astype(np.uint8)
    low, high = float(known.min()), float(known.max())
    return stretch(np.nan_to_num(values, nan=low, posinf=high, neginf=low), low, high)
