"""Files that are small until they are read."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from fedmunkey.client.importing.pictures import Choices, UnusablePicture, read_picture, unpacking

from .conftest import GREY, WriteDicom

MIB = 2**20


@pytest.fixture
def peak() -> Iterator[list[int]]:
    """Measure what Python takes meanwhile; a test puts the bytes that it allows there."""
    allowed: list[int] = []
    tracemalloc.start()
    yield allowed
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken < allowed[0]


def deflated(path: Path, data: bytes) -> Path:
    """Rewrite a DICOM file's data set as a deflated one with `data` behind it."""
    found = pydicom.dcmread(path)
    found.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    found.save_as(path)
    written = path.read_bytes()
    (length,) = struct.unpack("<I", written[140:144])
    start = 144 + length
    packing = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    inside = zlib.decompress(written[start:], -zlib.MAX_WBITS)
    path.write_bytes(written[:start] + packing.compress(inside + data) + packing.flush())
    return path


def zeros(size: int) -> bytes:
    """Return an element of a private group that holds zeros."""
    return struct.pack("<HH2sHI", 0x7FE1, 0x1010, b"OB", 0, size) + bytes(size)


def test_deflated_dicom_is_read(write_dicom: WriteDicom) -> None:
    assert np.array_equal(read_picture(deflated(write_dicom(), b""), Choices()), GREY)


def test_deflated_dicom_that_becomes_too_much_is_not_inflated(
    write_dicom: WriteDicom, monkeypatch: pytest.MonkeyPatch, peak: list[int]
) -> None:
    monkeypatch.setattr(unpacking, "MOST_UNPACKED", 4 * MIB)
    path = deflated(write_dicom(), zeros(64 * MIB))
    tracemalloc.clear_traces()
    tracemalloc.reset_peak()

    with pytest.raises(UnusablePicture, match="becomes more than 4 MiB when it is inflated"):
        read_picture(path, Choices())

    assert path.stat().st_size < MIB
    peak.append(8 * MIB)


def test_limit_of_a_deflated_dicom_is_what_is_said() -> None:
    assert unpacking.MOST_UNPACKED == 256 * MIB
    assert DeflatedExplicitVRLittleEndian.is_deflated
    assert not ExplicitVRLittleEndian.is_deflated


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_gzipped_volume_that_becomes_too_much_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peak: list[int], kind: Any
) -> None:
    path = tmp_path / "volume.nii.gz"
    nibabel.save(kind(np.zeros((128, 128, 512), dtype=np.int16), np.eye(4)), path)
    monkeypatch.setattr(unpacking, "MOST_VOLUME", 8 * MIB)
    tracemalloc.reset_peak()

    with pytest.raises(UnusablePicture, match="becomes more than 8 MiB when it is unpacked"):
        read_picture(path, Choices(middle_slice=True))

    assert path.stat().st_size < MIB
    peak.append(80 * MIB)


def test_extensions_of_a_nifti_file_are_bounded(tmp_path: Path, peak: list[int]) -> None:
    image: Any = nibabel.Nifti1Image(np.zeros((4, 4, 1), dtype=np.uint8), np.eye(4))
    header = bytearray(image.to_bytes()[:352])
    size = 64 * MIB
    header[108:112] = struct.pack("<f", 352 + size)
    header[348:352] = b"\x01\0\0\0"
    extension = struct.pack("<ii", size, 6) + bytes(size - 8)
    path = tmp_path / "image.nii.gz"
    path.write_bytes(gzip.compress(bytes(header) + extension + bytes(16)))
    del extension
    tracemalloc.reset_peak()

    with pytest.raises(UnusablePicture, match="follow more than 16 MiB of something else"):
        read_picture(path, Choices())

    peak.append(32 * MIB)


def test_unpacked_volume_may_be_larger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MOST_VOLUME", 100)
    path = tmp_path / "volume.nii"
    nibabel.save(nibabel.Nifti1Image(np.arange(60, dtype=np.uint8).reshape(4, 5, 3), np.eye(4)), path)

    assert read_picture(path, Choices(middle_slice=True)).shape == (5, 4)
