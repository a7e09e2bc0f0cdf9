"""Small picture files of every format, written by the libraries that hospitals' software is made with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

WriteDicom = Callable[..., Path]

GREY = np.arange(20, dtype=np.uint8).reshape(4, 5) * 12
"""(4, 5) values from 0 to 228."""


@pytest.fixture
def write_dicom(tmp_path: Path) -> WriteDicom:
    """Return a function that writes pixels, with other elements as wanted; a patient is in every file."""

    def write(pixels: NDArray[Any] = GREY, *, name: str = "image.dcm", frames: int = 0, **elements: Any) -> Path:
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["image"])
        dataset.PatientID = "PATIENT-17"
        dataset.PatientName = "Doe^Jane"
        bits = pixels.dtype.itemsize * 8
        shape = pixels.shape[1:] if frames else pixels.shape
        dataset.Rows, dataset.Columns = shape[:2]
        dataset.SamplesPerPixel = 3 if len(shape) == 3 else 1
        dataset.PhotometricInterpretation = "RGB" if len(shape) == 3 else "MONOCHROME2"
        if len(shape) == 3:
            dataset.PlanarConfiguration = 0
        if frames:
            dataset.NumberOfFrames = frames
        dataset.BitsAllocated = dataset.BitsStored = bits
        dataset.HighBit = bits - 1
        dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
        for element, value in elements.items():
            setattr(dataset, element, value)
        dataset.PixelData = pixels.tobytes()
        path = tmp_path / name
        dcmwrite(path, dataset, enforce_file_format=True)
        return path

    return write
