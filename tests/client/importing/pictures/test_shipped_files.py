"""Every file that pydicom and nibabel ship: accepted ones are compared with an independent rendering.

A DICOM picture is rendered by pydicom's own lookup tables, a NIfTI slice by nibabel's scaled array, each as a whole.
"""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import JPEGLSLossless

from fedmunkey.client.importing.pictures import Choices, UnusablePicture, read_picture

PYDICOM = Path(pydicom.__file__).parent / "data"
NIBABEL = Path(nibabel.__file__).parent
CHOICES = Choices(middle_slice=True, middle_frame=True)
NO_FILE = (".py", ".pyc", ".pyi", ".json", ".txt", ".md", ".rst", ".ini", ".dump", ".icc", ".gitignore")
LEVELS = 2

REASONS = {
    "pydicom/data/test_files/MR_truncated.dcm": "damaged or was cut short",
    "pydicom/data/test_files/badVR.dcm": "damaged or was cut short",
    "pydicom/data/test_files/rtplan.dcm": "holds no picture",
    "pydicom/data/test_files/nested_priv_SQ.dcm": "does not say its SamplesPerPixel",
    "pydicom/data/test_files/meta_missing_tsyntax.dcm": "does not say how it is encoded",
    "pydicom/data/test_files/ExplVR_BigEndNoMeta.dcm": "DICOM without the preamble and the header",
    "pydicom/data/test_files/ExplVR_LitEndNoMeta.dcm": "DICOM without the preamble and the header",
    "pydicom/data/test_files/SC_rgb_rle_16bit.dcm": "colours have more than 8 bits",
    "pydicom/data/test_files/examples_palette.dcm": "colour model",
    "pydicom/data/test_files/zipMR.gz": "packed with gzip",
    "pydicom/data/test_files/dicomdirtests/77654033/CT2/17166": "window or table every pixel has the same grey",
    "nibabel/tests/data/example4d.nii.gz": "4 dimensions",
    "nibabel/tests/data/row_major.dconn.nii": "6 dimensions",
    "nibabel/tests/data/nifti1.hdr": "one half of a NIfTI or Analyze pair",
    "nibabel/tests/data/analyze.hdr": "one half of a NIfTI or Analyze pair",
    "nibabel/tests/data/test.mgz": "no PNG, JPEG, DICOM or NIfTI",
}
"""Why some files are refused."""


def name_of(path: Path) -> str:
    return path.relative_to(NIBABEL.parent).as_posix()


@cache
def shipped() -> tuple[Path, ...]:
    found = sorted(path for root in (PYDICOM, NIBABEL) for path in root.rglob("*") if path.is_file())
    return tuple(path for path in found if path.suffix not in NO_FILE and path.name not in NO_FILE)


@cache
def outcomes() -> dict[str, NDArray[np.uint8] | str]:
    found: dict[str, NDArray[np.uint8] | str] = {}
    for path in shipped():
        try:
            found[name_of(path)] = read_picture(path, CHOICES)
        except UnusablePicture as refused:
            found[name_of(path)] = str(refused)
    return found


def rendered(path: Path) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nifti_slice(path) if path.name.endswith((".nii", ".nii.gz")) else dicom_frame(path)


def nifti_slice(path: Path) -> NDArray[np.float64]:
    image: Any = nibabel.load(path)
    to_lps = ornt_transform(io_orientation(image.affine), axcodes2ornt("LPS"))
    volume = apply_orientation(np.asarray(image.dataobj, dtype=np.float64), to_lps)
    values = volume[..., volume.shape[2] // 2].T
    spread: NDArray[np.float64] = (values - values.min()) / (values.max() - values.min()) * 255
    return spread


def dicom_frame(path: Path) -> NDArray[np.float64]:
    found: Any = pydicom.dcmread(path, force=True)
    stored = found.pixel_array
    frames = int(found.get("NumberOfFrames") or 1)
    stored = stored[frames // 2] if frames > 1 else stored
    if found.SamplesPerPixel != 1:
        return np.asarray(stored, dtype=np.float64)
    values = apply_modality_lut(stored, found)
    if found.get("WindowCenter") not in (None, ""):
        low, high = output_range(found)
        shown = apply_voi_lut(values, found, prefer_lut=False)
    elif found.BitsStored == 8 and not found.PixelRepresentation and np.array_equal(values, stored):
        low, high, shown = 0.0, 255.0, values
    else:
        inside = values[stored != found.get("PixelPaddingValue")]
        low, high = float(inside.min()), float(inside.max())
        shown = np.clip(values, low, high)
    grey = (np.asarray(shown, dtype=np.float64) - low) / ((high - low) or 1) * 255
    return 255 - grey if found.PhotometricInterpretation == "MONOCHROME1" else grey


def output_range(found: Any) -> tuple[float, float]:
    """Return what pydicom's window reaches to: as far as stored values can."""
    bits, signed = int(found.BitsStored), bool(found.PixelRepresentation)
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1], dtype=np.float64)
    low, high = ends * float(found.get("RescaleSlope", 1)) + float(found.get("RescaleIntercept", 0))
    return float(low), float(high)


def test_every_accepted_file_is_shown_as_its_own_library_shows_it() -> None:
    accepted = [path for path in shipped() if not isinstance(outcomes()[name_of(path)], str)]
    apart = {}
    for path in accepted:
        found, expected = np.asarray(outcomes()[name_of(path)], dtype=np.float64), rendered(path)
        assert found.shape == expected.shape, name_of(path)
        apart[name_of(path)] = float(np.abs(found - expected).max())

    assert len(accepted) >= 90
    assert {name: levels for name, levels in apart.items() if levels > LEVELS} == {}


@pytest.mark.skipif(not get_decoder(JPEGLSLossless).is_available, reason="fedmunkey[dicom] is not installed")
@pytest.mark.parametrize("name", ["MR_small_jpeg_ls_lossless", "JPEGLSNearLossless_16", "SC_rgb_jpeg_gdcm"])
def test_decoders_of_the_extra_are_used(name: str) -> None:
    assert not isinstance(outcomes()[f"pydicom/data/test_files/{name}.dcm"], str)


@pytest.mark.parametrize("name", REASONS)
def test_file_is_refused_for_its_own_reason(name: str) -> None:
    assert REASONS[name] in str(outcomes()[name])


def test_sound_files_are_not_called_damaged() -> None:
    damaged = {name for name, outcome in outcomes().items() if isinstance(outcome, str) and "damaged" in outcome}

    # Decoders fail at up to three compressed pictures; the other two are cut short and ill-formed.
    assert damaged <= {
        "pydicom/data/test_files/MR_truncated.dcm",
        "pydicom/data/test_files/badVR.dcm",
        "pydicom/data/test_files/GDCMJ2K_TextGBR.dcm",
        "pydicom/data/test_files/JPEG-lossy.dcm",
        "pydicom/data/test_files/JPEG2000-embedded-sequence-delimiter.dcm",
    }
