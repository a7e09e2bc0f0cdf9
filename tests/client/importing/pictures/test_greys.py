"""Greys are what the scan holds: what headers say in rarer ways is shown right, or refused with its reason."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.sequence import Sequence
from pydicom.uid import JPEGExtended12Bit, SecondaryCaptureImageStorage

from fedmunkey.client.importing.pictures import Choices, Remark, UnusablePicture, open_picture, picture, read_picture
from fedmunkey.common.errors import InvalidInput

from .conftest import GREY, WriteDicom
from .test_dicom import compressed

HOUNSFIELD = np.array([[-1000, -160, 40], [240, 1000, 39]], dtype=np.int16)
WINDOWED = [[0, 0, 128], [255, 255, 127]]
NO_CHOICE = Choices()


def read(path: Path, choices: Choices = NO_CHOICE) -> list[Any]:
    found: list[Any] = read_picture(path, choices).tolist()
    return found


def refused(path: Path, choices: Choices = NO_CHOICE) -> str:
    with pytest.raises(UnusablePicture) as reason:
        read_picture(path, choices)
    return str(reason.value)


def png(path: Path, values: NDArray[Any]) -> Path:
    Image.fromarray(values).save(path, format="PNG")
    return path


def item(**elements: Any) -> Dataset:
    made = Dataset()
    for name, value in elements.items():
        setattr(made, name, value)
    return made


def groups(centre: float = 40, slope: float = 1) -> Dataset:
    """Return functional groups with a rescale to Hounsfield units and a window of 400."""
    transformed = item(RescaleSlope=slope, RescaleIntercept=-1024, RescaleType="HU")
    shown = item(WindowCenter=centre, WindowWidth=400)
    return item(
        PixelValueTransformationSequence=Sequence([transformed]),
        FrameVOILUTSequence=Sequence([shown]),
    )


def test_functional_groups_of_one_enhanced_frame_are_read(write_dicom: WriteDicom) -> None:
    path = write_dicom(
        (HOUNSFIELD + 1024).astype(np.uint16), SharedFunctionalGroupsSequence=Sequence([groups()]), NumberOfFrames=1
    )

    assert read(path) == WINDOWED


def test_groups_of_a_frame_come_before_the_shared_ones(write_dicom: WriteDicom) -> None:
    frames = np.stack([HOUNSFIELD + 1024] * 2).astype(np.uint16)
    path = write_dicom(
        frames,
        frames=2,
        SharedFunctionalGroupsSequence=Sequence([groups(centre=3000)]),
        PerFrameFunctionalGroupsSequence=Sequence([groups(centre=-700), groups(centre=40)]),
    )

    assert read(path, Choices(frame=2)) == WINDOWED
    assert read(path, Choices(frame=1)) != WINDOWED


@pytest.mark.parametrize(
    ("choices", "place"), [(Choices(frame=1), 0), (Choices(frame=3), 2), (Choices(middle_frame=True), 1)]
)
def test_chosen_frame_is_shown(write_dicom: WriteDicom, choices: Choices, place: int) -> None:
    frames = np.stack([GREY, GREY + 1, GREY + 2])

    assert read(write_dicom(frames, frames=3), choices) == frames[place].tolist()


def test_frame_that_is_not_there_is_refused(write_dicom: WriteDicom) -> None:
    path = write_dicom(np.stack([GREY] * 3), frames=3)

    assert "holds 3 frames; choose one with --frame" in refused(path)
    assert "fewer than --frame asks for" in refused(path, Choices(frame=4))


@pytest.mark.parametrize(
    ("words", "message"), [(("", "0"), "--frame 0"), (("", "x"), "--frame 'x'"), (("", "", 17), "--bits 17")]
)
def test_choice_that_is_none_is_refused(words: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Choices.parse(*words)


def test_large_files_frame_is_read_alone(write_dicom: WriteDicom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmunkey.client.importing.pictures.dicom._LARGE", 0)
    frames = np.stack([GREY, GREY + 1])

    assert read(write_dicom(frames, frames=2), Choices(frame=2)) == frames[1].tolist()


@pytest.mark.parametrize(
    ("stored", "elements", "shown"),
    [
        pytest.param(
            [[-2000, -1500], [-1001, 0], [500, 1000]],
            {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1001},
            [[0, 0], [0, 0], [128, 255]],
            id="range-of-padding",
        ),
        pytest.param(
            [[-2000, 0], [500, 1000]],
            {"PixelPaddingValue": -2000, "PhotometricInterpretation": "MONOCHROME1"},
            [[0, 255], [127, 0]],
            id="padding-of-inverted-grey-is-black",
        ),
    ],
)
def test_padding_is_left_out_and_black(
    write_dicom: WriteDicom, stored: Any, elements: dict[str, Any], shown: list[list[int]]
) -> None:
    assert read(write_dicom(np.array(stored, dtype=np.int16), **elements)) == shown


def test_padding_without_its_sign_is_known_again(write_dicom: WriteDicom) -> None:
    path = write_dicom(np.array([[-2000, 0], [500, 1000]], dtype=np.int16), PixelPaddingValue=-2000)
    found = pydicom.dcmread(path)
    found["PixelPaddingValue"] = pydicom.DataElement("PixelPaddingValue", "US", 65536 - 2000)
    found.save_as(path)

    assert read(path) == [[0, 0], [128, 255]]


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"RescaleSlope": 2}, "has RescaleSlope and no RescaleIntercept"),
        ({"RescaleIntercept": -1024}, "has RescaleIntercept and no RescaleSlope"),
        ({"WindowCenter": 40}, "has WindowCenter and no WindowWidth"),
        ({"RescaleSlope": 0, "RescaleIntercept": 5}, "RescaleSlope is 0"),
        ({"WindowCenter": 60_000, "WindowWidth": 100}, "every pixel has the same grey"),
        ({"BitsStored": 12, "HighBit": 15}, "HighBit is not its BitsStored - 1"),
    ],
)
def test_header_that_leaves_nothing_to_see_is_refused(
    write_dicom: WriteDicom, elements: dict[str, Any], reason: str
) -> None:
    assert reason in refused(write_dicom(HOUNSFIELD, **elements))


@pytest.mark.parametrize(
    "name", ["PixelRepresentation", "BitsStored", "SamplesPerPixel", "PhotometricInterpretation", "Rows"]
)
def test_missing_attribute_is_named(write_dicom: WriteDicom, name: str) -> None:
    path = write_dicom()
    found = pydicom.dcmread(path)
    delattr(found, name)
    found.save_as(path)

    assert refused(path) == f"the DICOM file does not say its {name}; export it again"


def test_pixels_of_floating_point_numbers_are_named(write_dicom: WriteDicom) -> None:
    path = write_dicom()
    found = pydicom.dcmread(path)
    del found.PixelData
    found.FloatPixelData = GREY.astype("<f4").tobytes()
    found.BitsAllocated = 32
    found.save_as(path)

    assert "floating-point numbers" in refused(path)


def test_dicom_without_a_preamble_is_read_by_its_own_header(write_dicom: WriteDicom) -> None:
    path = write_dicom()
    path.write_bytes(path.read_bytes()[132:])

    assert read(path) == GREY.tolist()


def test_dicom_without_any_header_is_named(write_dicom: WriteDicom) -> None:
    path = write_dicom(SOPClassUID=SecondaryCaptureImageStorage)
    content = path.read_bytes()
    path.write_bytes(content[content.index(b"\x08\x00\x16\x00UI") :])

    assert "DICOM without the preamble and the header of a file" in refused(path)


@pytest.mark.skipif("pylibjpeg" in get_decoder(JPEGExtended12Bit).available_plugins, reason="a decoder is installed")
def test_twelve_bits_of_extended_jpeg_are_not_called_damaged(write_dicom: WriteDicom) -> None:
    path = write_dicom(GREY.astype(np.uint16), BitsStored=12, HighBit=11)

    assert "no decoder for the transfer syntax JPEG Extended" in refused(
        compressed(path, JPEGExtended12Bit, b"\0" * 64)
    )


def test_burned_in_writing_is_remarked(write_dicom: WriteDicom) -> None:
    assert open_picture(write_dicom(BurnedInAnnotation="YES"), NO_CHOICE).remarks == (Remark.BURNED_IN,)
    assert open_picture(write_dicom(BurnedInAnnotation="NO"), NO_CHOICE).remarks == ()


def test_single_grey_level_is_remarked(tmp_path: Path) -> None:
    assert open_picture(png(tmp_path / "black.png", np.zeros((4, 4), np.uint8)), NO_CHOICE).remarks == (Remark.FLAT,)


@pytest.mark.parametrize(("largest", "bits"), [(4095, 12), (16_383, 14), (1023, 10)])
def test_shallow_values_in_sixteen_bits_are_refused_or_scaled(tmp_path: Path, largest: int, bits: int) -> None:
    path = png(tmp_path / "scan.png", np.array([[0, largest // 2], [largest - 1, largest]], dtype=np.uint16))

    assert f"values of at most {bits}, which would be shown too dark; say with --bits" in refused(path)
    assert read(path, Choices(bits=bits)) == [[0, 127], [255, 255]]


def test_values_deeper_than_was_chosen_are_refused(tmp_path: Path) -> None:
    path = png(tmp_path / "scan.png", np.array([[0, 5000]], dtype=np.uint16))

    assert "more than the 12 bits that --bits gives" in refused(path, Choices(bits=12))
    assert read(path, Choices(bits=16)) == [[0, 19]]


def test_shallow_colours_of_sixteen_bits_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scan.png"
    path.write_bytes(colour_png(np.full((2, 2, 3), 4095, dtype=">u2")))
    assert "highest of its 16 bits are not used" in refused(path)

    path.write_bytes(colour_png(np.full((2, 2, 3), 65_535, dtype=">u2")))
    assert read(path) == np.full((2, 2, 3), 255).tolist()


def colour_png(values: NDArray[Any]) -> bytes:
    """Write a PNG of 16-bit colours, which Pillow cannot."""
    import struct
    import zlib

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width, _ = values.shape
    lines = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def test_picture_far_over_the_limit_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "scan.png"
    Image.new("1", (20_000, 20_000)).save(path)

    assert "more than 50 million pixels" in refused(path)


def test_flipped_bit_of_a_png_never_shows_another_picture(tmp_path: Path) -> None:
    smooth = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))
    path = png(tmp_path / "scan.png", smooth)
    sound = path.read_bytes()
    refusals = 0
    for place in range(8, len(sound)):
        flipped = bytearray(sound)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            assert read(path) == smooth.tolist()
        except UnusablePicture:
            refusals += 1
    assert refusals > 80


def test_twelve_bit_jpeg_is_named(tmp_path: Path) -> None:
    path = tmp_path / "scan.jpg"
    Image.fromarray(GREY).save(path)
    content = bytearray(path.read_bytes())
    frame = content.index(b"\xff\xc0")
    content[frame + 1], content[frame + 4] = 0xC1, 12
    path.write_bytes(content)

    assert "the JPEG file has 12 bits" in refused(path)


def noise(path: Path, side: int = 16) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (side, side, side), dtype=np.uint8)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    return path


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
@pytest.mark.parametrize("share", [0.4, 0.6, 0.9, 0.999])
def test_cut_volume_is_refused_whichever_slice_is_chosen(tmp_path: Path, name: str, share: float) -> None:
    path = noise(tmp_path / name)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])

    for place in (0, 1, -1):
        assert "damaged or was cut short" in refused(path, Choices(volume_slice=place))


def test_flipped_bit_of_packed_values_is_refused(tmp_path: Path) -> None:
    path = noise(tmp_path / "scan.nii.gz")
    sound = path.read_bytes()
    shown = read(path, Choices(volume_slice=0))
    random = np.random.default_rng(1)
    accepted = 0
    for place in random.integers(10, len(sound), 100):
        flipped = bytearray(sound)
        flipped[place] ^= 1 << int(random.integers(8))
        path.write_bytes(flipped)
        try:
            assert read(path, Choices(volume_slice=0)) == shown
            accepted += 1
        except UnusablePicture:
            continue
    # A name in the gzip header is under no checksum, and says nothing of the picture.
    assert accepted <= 3


def test_nifti_with_more_than_its_header_says_is_refused(tmp_path: Path) -> None:
    path = noise(tmp_path / "scan.nii.gz")
    with gzip.open(path) as packed:
        content = packed.read()
    path.write_bytes(gzip.compress(content + bytes(3 << 20)))

    assert "holds more than its header says" in refused(path, Choices(volume_slice=0))


def test_display_range_outside_of_all_values_is_refused(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.array([[[0], [50]], [[100], [200]]], dtype=np.int16), np.eye(4))
    image.header["cal_min"], image.header["cal_max"] = 5000, 6000
    nibabel.save(image, tmp_path / "scan.nii")

    assert "cal_min and cal_max every pixel has the same grey" in refused(tmp_path / "scan.nii")


def test_half_of_a_pair_is_named(tmp_path: Path) -> None:
    values = np.zeros((4, 4, 1), np.uint8)
    nibabel.save(nibabel.Nifti1Pair(values, np.eye(4)), tmp_path / "nifti.img")
    nibabel.save(nibabel.AnalyzeImage(values, np.eye(4)), tmp_path / "analyze.img")

    for name in ("nifti.hdr", "nifti.img", "analyze.hdr", "analyze.img"):
        assert "one half of a NIfTI or Analyze pair" in refused(tmp_path / name)


@pytest.mark.parametrize(("kind", "name"), [("GIF", "a GIF"), ("BMP", "a BMP"), ("TIFF", "a TIFF"), ("WEBP", "a WebP")])
def test_other_formats_are_named(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / "scan"
    Image.fromarray(GREY).save(path, format=kind)

    assert f"but {name}" in refused(path)


def test_packed_dicom_is_named(write_dicom: WriteDicom) -> None:
    path = write_dicom()
    path.write_bytes(gzip.compress(path.read_bytes()))

    assert refused(path) == "it is a picture packed with gzip; unpack it"


def test_blocks_do_not_change_what_is_shown(
    write_dicom: WriteDicom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(2)
    deep = random.integers(-500, 3000, (37, 23)).astype(np.int16)
    paths = [
        write_dicom(deep, WindowCenter=900, WindowWidth=1500).rename(tmp_path / "window.dcm"),
        write_dicom(deep, PixelPaddingValue=-500).rename(tmp_path / "range.dcm"),
        png(tmp_path / "deep.png", random.integers(0, 65_536, (37, 23), dtype=np.uint16)),
        png(tmp_path / "colour.png", random.integers(0, 256, (37, 23, 3), dtype=np.uint8)),
    ]
    whole = [read(path) for path in paths]
    monkeypatch.setattr(picture, "_BLOCK", 50)

    assert [read(path) for path in paths] == whole
