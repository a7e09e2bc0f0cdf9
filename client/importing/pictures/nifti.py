"""NIfTI files: a flat image, or one slice of a volume, turned as an axial DICOM slice is shown."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

from fedmunkey.client.importing.pictures.picture import (
    Choices,
    Picture,
    Pixels,
    UnusablePicture,
    check_size,
    is_flat,
    row_blocks,
    stretch,
)
from fedmunkey.client.importing.pictures.signatures import GZIP, HEAD, nifti_version

_SECOND = 2
_UP = 2
"""The axis of nibabel's RAS+ space (right, front, up) that axial slices are stacked along."""

_AFTER = 1 << 20
"""Bytes that may follow what a header describes; whoever writes more has described something else."""

_LONGEST_READ = 1 << 20


def read(path: Path, choices: Choices) -> Picture:
    """Decode one slice of a NIfTI-1 or NIfTI-2 file, gzipped or not, by what it holds: nibabel would go by the name.

    Of a volume it is the axial one that was chosen. It is turned as DICOM shows it: the patient's right, or the front
    of a sagittal slice, at the left; the front, or the head, at the top. Values become grey through the header's
    display range (cal_min, cal_max). Without one, unscaled 8-bit values stay as they are, and others reach from the
    slice's smallest to its largest. What is not a number is as dark as the smallest.

    The file is read to its end, so that one that was cut short, or whose packed bytes have another checksum than they
    should, is refused whichever slice was chosen.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    with gzip.open(path) if head.startswith(GZIP) else path.open("rb") as stream:
        kind = nibabel.Nifti2Image if nifti_version(head) == _SECOND else nibabel.Nifti1Image
        image = kind.from_stream(stream)
        _check_kind(image.get_data_dtype())
        values = _slice(image, choices)
        _check_end(stream, image)
    proxy: Any = image.dataobj
    as_stored = image.get_data_dtype() == np.uint8 and (proxy.slope, proxy.inter) == (1.0, 0.0)
    return Picture(_shown(values, float(image.header["cal_min"]), float(image.header["cal_max"]), as_stored))


def _check_end(stream: Any, image: Any) -> None:
    """Read on to the end, where a gzip stream compares length and checksum."""
    needed = int(image.dataobj.offset) + int(np.prod(image.shape, dtype=np.int64)) * image.get_data_dtype().itemsize
    while chunk := stream.read(_LONGEST_READ):
        if stream.tell() - len(chunk) > needed + _AFTER:
            raise UnusablePicture("the NIfTI file holds more than its header says; export it again")
    if stream.tell() < needed:
        raise UnusablePicture("the file is damaged or was cut short")


def _check_kind(kind: np.dtype[Any]) -> None:
    if kind.fields is not None:
        raise UnusablePicture("the NIfTI file holds colours; export it as grey, or as PNG")
    if np.issubdtype(kind, np.complexfloating):
        raise UnusablePicture("the NIfTI file holds complex numbers; export their magnitude")


def _slice(image: Any, choices: Choices) -> NDArray[np.generic]:
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
    values = np.asarray(image.dataobj[tuple(index[: len(shape)])])
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


def _shown(values: NDArray[np.generic], low: float, high: float, as_stored: bool) -> Pixels:
    smallest, largest = _finite_range(values)
    if high > low:
        shown = _stretched(values, low, high, missing=low)
        if is_flat(shown) and largest > smallest:
            raise UnusablePicture(
                "with the NIfTI file's cal_min and cal_max every pixel has the same grey; correct them"
            )
        return shown
    return values.astype(np.uint8) if as_stored else _stretched(values, smallest, largest, missing=smallest)


def _finite_range(values: NDArray[np.generic]) -> tuple[float, float]:
    ranges = []
    for rows in row_blocks(*values.shape):
        known = values[rows][np.isfinite(values[rows])]
        if known.size:
            ranges.append((float(known.min()), float(known.max())))
    if not ranges:
        raise UnusablePicture("the slice holds no number")
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _stretched(values: NDArray[np.generic], low: float, high: float, *, missing: float) -> Pixels:
    shown = np.empty(values.shape, dtype=np.uint8)
    for rows in row_blocks(*values.shape):
        block = values[rows].astype(np.float64)
        shown[rows] = stretch(np.nan_to_num(block, nan=missing, posinf=high, neginf=low), low, high)
    return shown
