from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.sequence import Sequence
from pydicom.uid import MPEG2MPML, UID, JPEG2000Lossless, JPEGLSLossless, RLELossless

from fedmunkey.client.importing.pictures import Choices, UnusablePicture, dicom, picture, read_picture
from fedmunkey.client.importing.pictures.grey_values import window

from .conftest import GREY, WriteDicom

HOUNSFIELD = np.array([[-1000, -160, 40], [240, 1000, 39]], dtype=np.int16)
INVERTED = {"PhotometricInterpretation": "MONOCHROME1"}
RESCALED = {"RescaleSlope": 1, "RescaleIntercept": -1024}
SLOPE = {"RescaleSlope": 100, "RescaleIntercept": -200, "WindowCenter": 0.5, "WindowWidth": 401}
SEVERAL = {"WindowCenter": [40, -600], "WindowWidth": [400, 1500]}
WINDOW = {"WindowCenter": 40, "WindowWidth": 400}


def read(path: Path) -> NDArray[np.uint8]:
    return read_picture(path, Choices())


def test_eight_bits_stay_as_they_are(write_dicom: WriteDicom) -> None:
    assert np.array_equal(read(write_dicom()), GREY)
    assert np.array_equal(read(write_dicom(RescaleSlope=1, RescaleIntercept=0)), GREY)


def test_eight_bits_in_words_of_sixteen_stay_as_they_are(write_dicom: WriteDicom) -> None:
    assert np.array_equal(read(write_dicom(GREY.astype(np.uint16), BitsStored=8, HighBit=7)), GREY)


def test_monochrome1_is_turned_into_bright_on_dark(write_dicom: WriteDicom) -> None:
    assert np.array_equal(read(write_dicom(**INVERTED)), 255 - GREY)


@pytest.mark.parametrize(
    ("stored", "elements", "shown"),
    [
        # PS3.3 C.11.2.1.2.1: ((x - (c - 0.5)) / (w - 1) + 0.5) * 255, from black to white over c - 0.5 -+ (w - 1) / 2.
        pytest.param(HOUNSFIELD + 1024, RESCALED | WINDOW, [[0, 0, 128], [255, 255, 127]], id="window"),
        pytest.param(HOUNSFIELD, SEVERAL, [[0, 0, 128], [255, 255, 127]], id="first-of-several-windows"),
        pytest.param(HOUNSFIELD, WINDOW | INVERTED, [[255, 255, 127], [0, 0, 128]], id="window-of-inverted-grey"),
        pytest.param([[0, 1, 2, 4]], SLOPE, [[0, 64, 128, 255]], id="slope"),
        pytest.param(HOUNSFIELD, {}, [[0, 107, 133], [158, 255, 132]], id="from-the-smallest-to-the-largest"),
        pytest.param([[-2000, 0], [500, 1000]], {"PixelPaddingValue": -2000}, [[0, 0], [128, 255]], id="padding"),
        pytest.param([[700] * 3] * 3, {}, [[0] * 3] * 3, id="one-value"),
    ],
)
def test_values_are_shown_as_the_elements_say(
    write_dicom: WriteDicom, stored: Any, elements: dict[str, Any], shown: list[list[int]]
) -> None:
    assert read(write_dicom(np.array(stored, dtype=np.int16), **elements)).tolist() == shown


def test_table_instead_of_a_window_is_looked_up(write_dicom: WriteDicom) -> None:
    table = Dataset()
    table.LUTDescriptor = [4, 0, 16]
    table.LUTData = np.array([0, 16384, 32768, 65535], dtype="<u2").tobytes()
    path = write_dicom(np.array([[0, 1, 2, 3]], dtype=np.uint16), VOILUTSequence=Sequence([table]))

    assert read(path).tolist() == [[0, 64, 128, 255]]


@pytest.mark.parametrize(
    ("values", "center", "width", "function", "expected"),
    [
        # At the centre and half a width to either side of it (PS3.3 C.11.2.1.2 and C.11.2.1.3).
        ([-100, 0, 100], 0.0, 200.0, "LINEAR_EXACT", [0, 128, 255]),
        ([-100, 0, 100], 0.0, 200.0, "SIGMOID", [round(255 / (1 + np.exp(2))), 128, round(255 / (1 + np.exp(-2)))]),
        # A width of one is a threshold.
        ([9, 10, 11], 10.5, 1.0, "LINEAR", [0, 0, 255]),
    ],
)
def test_window_functions_are_those_of_the_standard(
    values: list[int], center: float, width: float, function: str, expected: list[int]
) -> None:
    assert window(np.array(values), center, width, function).tolist() == expected


def test_colours_are_red_green_and_blue(write_dicom: WriteDicom) -> None:
    colours = np.arange(60, dtype=np.uint8).reshape(4, 5, 3) * 4

    assert np.array_equal(read(write_dicom(colours)), colours)


def test_luma_and_chroma_become_colours(write_dicom: WriteDicom) -> None:
    image = Image.new("RGB", (6, 4), (200, 30, 60))
    path = write_dicom(np.asarray(image.convert("YCbCr")), PhotometricInterpretation="YBR_FULL")

    assert np.abs(read(path).astype(int) - np.asarray(image)).max() <= 3


def compressed(path: Path, syntax: str, content: bytes) -> Path:
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.PixelData = encapsulate([content])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    return path


def test_run_lengths_are_decoded(write_dicom: WriteDicom) -> None:
    path = write_dicom()
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless)
    dataset.save_as(path)

    assert np.array_equal(read(path), GREY)


def test_jpeg_2000_is_decoded(write_dicom: WriteDicom) -> None:
    content = io.BytesIO()
    Image.fromarray(GREY).save(content, format="JPEG2000", irreversible=False, no_jp2=True)

    assert np.array_equal(read(compressed(write_dicom(), JPEG2000Lossless, content.getvalue())), GREY)


@pytest.mark.parametrize(
    ("syntax", "reason"),
    [
        pytest.param(
            JPEGLSLossless,
            "no decoder for the transfer syntax JPEG-LS.*fedmunkey.dicom",
            marks=pytest.mark.skipif(get_decoder(JPEGLSLossless).is_available, reason="a decoder is installed"),
        ),
        (MPEG2MPML, "export it uncompressed"),
    ],
)
def test_transfer_syntax_without_a_decoder_is_refused(write_dicom: WriteDicom, syntax: str, reason: str) -> None:
    with pytest.raises(UnusablePicture, match=reason):
        read(compressed(write_dicom(), syntax, b"\0" * 64))


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour model"),
        ({"WindowCenter": 40, "WindowWidth": 0}, "window is not wide enough"),
        ({"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "CUBIC"}, "function that is not known"),
        ({"Rows": 0}, "has no pixel"),
        ({"pixels": np.stack([GREY] * 3), "frames": 3}, "holds 3 frames"),
    ],
)
def test_file_that_cannot_be_shown_is_refused(write_dicom: WriteDicom, elements: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnusablePicture, match=reason):
        read(write_dicom(**elements))


def test_file_without_a_picture_is_refused(write_dicom: WriteDicom) -> None:
    path = write_dicom()
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)

    with pytest.raises(UnusablePicture, match="holds no picture"):
        read(path)


def test_file_that_was_cut_short_is_refused(write_dicom: WriteDicom) -> None:
    path = write_dicom()
    path.write_bytes(path.read_bytes()[:-4])

    with pytest.raises(UnusablePicture, match="damaged or was cut short"):
        read(path)


def test_picture_that_would_fill_memory_is_refused(write_dicom: WriteDicom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "MOST_PIXELS", 19)

    with pytest.raises(UnusablePicture, match="make it smaller"):
        read(write_dicom())


def test_who_the_patient_is_is_never_read(write_dicom: WriteDicom, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Dataset] = []

    def noted(*arguments: Any, **options: Any) -> Any:
        seen.append(pydicom.dcmread(*arguments, **options))
        return seen[-1]

    monkeypatch.setattr(dicom, "dcmread", noted)
    path = write_dicom()
    read(path)

    everything = pydicom.dcmread(path)
    assert "PatientID" in everything
    assert seen
    for dataset in seen:
        assert "PatientID" not in dataset
        assert "PatientName" not in dataset
        assert "PATIENT-17" not in str(dataset)
