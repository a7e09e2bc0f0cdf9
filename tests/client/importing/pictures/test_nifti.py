from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray

from fedmunkey.client.importing.pictures import Choices, UnusablePicture, read_picture

RAS = np.diag([2.0, 2.0, 3.0, 1.0])
MIDDLE = Choices(middle_slice=True)


def volume() -> NDArray[np.uint8]:
    """Return (4, 5, 6) values that tell right, front and up apart: 100 z + 10 y + x would, within eight bits."""
    x, y, z = np.meshgrid(np.arange(4), np.arange(5), np.arange(6), indexing="ij")
    return (x + 4 * y + 20 * z).astype(np.uint8)


def write(path: Path, values: NDArray[Any], affine: NDArray[Any] = RAS, kind: Any = nibabel.Nifti1Image) -> Path:
    nibabel.save(kind(values, affine), path)
    return path


def axial(z: int) -> NDArray[np.uint8]:
    """Return a slice as DICOM shows it: row 0 is the front, column 0 the patient's right."""
    return volume()[::-1, ::-1, z].T


@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_slice_is_turned_as_it_is_shown(tmp_path: Path, name: str, kind: Any) -> None:
    path = write(tmp_path / name, volume(), kind=kind)

    assert np.array_equal(read_picture(path, Choices(volume_slice=1)), axial(1))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PSR", "SAL", "IRP"])
def test_axes_of_the_file_do_not_matter(tmp_path: Path, codes: str) -> None:
    turn = ornt_transform(io_orientation(RAS), axcodes2ornt(codes))
    turned = nibabel.orientations.apply_orientation(volume(), turn)
    path = write(tmp_path / "image.nii.gz", turned, RAS @ inv_ornt_aff(turn, volume().shape))

    saved: Any = nibabel.load(path)
    assert "".join(nibabel.aff2axcodes(saved.affine)) == codes
    assert np.array_equal(read_picture(path, Choices(volume_slice=1)), axial(1))


@pytest.mark.parametrize(("choices", "z"), [(MIDDLE, 3), (Choices(volume_slice=0), 0), (Choices(volume_slice=-1), 5)])
def test_slices_are_counted_from_the_feet(tmp_path: Path, choices: Choices, z: int) -> None:
    assert np.array_equal(read_picture(write(tmp_path / "image.nii", volume()), choices), axial(z))


def test_flat_image_needs_no_choice(tmp_path: Path) -> None:
    flat = volume()[:, :, 2]

    for name, values in (("flat", flat), ("one", flat[:, :, None]), ("one-of-one", flat[:, :, None, None])):
        assert np.array_equal(read_picture(write(tmp_path / f"{name}.nii", values), Choices()), axial(2))


def test_single_coronal_slice_has_the_head_at_the_top(tmp_path: Path) -> None:
    found = read_picture(write(tmp_path / "image.nii", volume()[:, 2:3, :]), Choices())

    assert np.array_equal(found, volume()[::-1, 2, ::-1].T)


def test_values_are_scaled_from_the_smallest_to_the_largest(tmp_path: Path) -> None:
    values = np.array([[[-100.0], [np.nan]], [[100.0], [0.0]]], dtype=np.float32)

    found = read_picture(write(tmp_path / "image.nii", values), Choices())

    assert found.tolist() == [[128, 0], [255, 0]]


def test_display_range_of_the_header_is_used(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.array([[[0], [50]], [[100], [200]]], dtype=np.int16), RAS)
    image.header["cal_min"], image.header["cal_max"] = 0, 100
    nibabel.save(image, tmp_path / "image.nii")

    assert read_picture(tmp_path / "image.nii", Choices()).tolist() == [[255, 128], [255, 0]]


def colours() -> NDArray[Any]:
    return np.zeros((4, 4, 1), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize(
    ("values", "choices", "reason"),
    [
        (volume(), Choices(), "holds 6 slices; choose one with --slice"),
        (volume(), Choices(volume_slice=6), "6 slices, fewer than"),
        (volume(), Choices(volume_slice=-7), "6 slices, fewer than"),
        (np.zeros((3, 3, 3, 2), np.uint8), MIDDLE, "4 dimensions"),
        (np.zeros(3, np.uint8), MIDDLE, "1 dimensions"),
        (np.zeros((3, 3, 1), np.complex64), MIDDLE, "complex"),
        (colours(), MIDDLE, "colours"),
        (np.full((3, 3, 1), np.nan, np.float32), MIDDLE, "holds no number"),
    ],
)
def test_what_would_be_guessed_is_refused(tmp_path: Path, values: NDArray[Any], choices: Choices, reason: str) -> None:
    with pytest.raises(UnusablePicture, match=reason):
        read_picture(write(tmp_path / "image.nii", values), choices)


@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz"])
def test_file_that_was_cut_short_is_refused(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 16), dtype=np.uint8)
    path = write(tmp_path / name, noise)
    path.write_bytes(path.read_bytes()[:3000])

    with pytest.raises(UnusablePicture, match="damaged"):
        read_picture(path, Choices(volume_slice=-1))
