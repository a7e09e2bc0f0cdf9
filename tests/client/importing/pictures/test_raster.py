from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fedmunkey.client.importing.pictures import Choices, UnusablePicture, picture, read_picture

GREY = np.arange(20, dtype=np.uint8).reshape(4, 5) * 12
COLOUR = np.arange(60, dtype=np.uint8).reshape(4, 5, 3) * 4


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def read(path: Path) -> NDArray[np.uint8]:
    return read_picture(path, Choices())


@pytest.mark.parametrize("values", [GREY, COLOUR])
def test_png_keeps_every_value(tmp_path: Path, values: NDArray[np.uint8]) -> None:
    assert np.array_equal(read(saved(Image.fromarray(values), tmp_path / "image.png")), values)


def test_what_a_file_is_called_does_not_matter(tmp_path: Path) -> None:
    path = saved(Image.fromarray(GREY), tmp_path / "image.jpg", format="PNG")

    assert np.array_equal(read(path), GREY)


def test_jpeg_is_nearly_what_was_saved(tmp_path: Path) -> None:
    smooth = np.tile(np.linspace(20, 220, 32, dtype=np.uint8), (32, 1))
    found = read(saved(Image.fromarray(smooth), tmp_path / "image.jpg", quality=95))

    assert found.shape == smooth.shape
    assert np.abs(found.astype(int) - smooth).max() < 6


def test_jpeg_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    dark_above = np.vstack([np.zeros((16, 32), np.uint8), np.full((16, 32), 255, np.uint8)])
    exif = Image.Exif()
    exif[0x0112] = 3  # Orientation: upside down.
    found = read(saved(Image.fromarray(dark_above), tmp_path / "image.jpg", exif=exif))

    assert found[:8].mean() > 200
    assert found[-8:].mean() < 50


def test_sixteen_bits_are_brought_to_eight_with_one_scale(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 1000], [32_768, 65_000, 65_535]], dtype=np.uint16)

    found = read(saved(Image.fromarray(deep), tmp_path / "image.png"))

    assert found.tolist() == [[0, 1, 4], [128, 253, 255]]


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    image = Image.fromarray(GREY).convert("1", dither=Image.Dither.NONE)

    assert set(np.unique(read(saved(image, tmp_path / "image.png")))) == {0, 255}


def test_palette_is_looked_up(tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR).quantize(20)

    found = read(saved(image, tmp_path / "image.png"))

    assert np.array_equal(found, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(("mode", "shape"), [("LA", (4, 5)), ("RGBA", (4, 5, 3))])
def test_alpha_that_hides_nothing_is_left_out(tmp_path: Path, mode: str, shape: tuple[int, ...]) -> None:
    found = read(saved(Image.fromarray(GREY).convert(mode), tmp_path / "image.png"))

    assert found.shape == shape
    assert np.array_equal(found if found.ndim == 2 else found[..., 1], GREY)


@pytest.mark.parametrize(
    ("image", "reason"),
    [(Image.new("RGBA", (4, 4), (1, 2, 3, 128)), "partly transparent"), (Image.new("CMYK", (4, 4)), "model CMYK")],
)
def test_picture_that_would_have_to_be_guessed_is_refused(tmp_path: Path, image: Image.Image, reason: str) -> None:
    kind = "JPEG" if image.mode == "CMYK" else "PNG"
    path = saved(image, tmp_path / "image", format=kind)

    with pytest.raises(UnusablePicture, match=reason):
        read(path)


def test_animated_png_is_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    path = saved(frames[0], tmp_path / "image.png", save_all=True, append_images=frames[1:])

    with pytest.raises(UnusablePicture, match="several frames"):
        read(path)


def test_picture_that_would_fill_memory_is_refused_undecoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "MOST_PIXELS", 19)
    path = saved(Image.fromarray(GREY), tmp_path / "image.png")
    path.write_bytes(path.read_bytes()[:60])

    with pytest.raises(UnusablePicture, match="pixels; make it smaller"):
        read(path)


def test_file_that_was_cut_short_is_refused_without_its_name(tmp_path: Path) -> None:
    path = saved(Image.effect_noise((64, 64), 50), tmp_path / "PATIENT-17.png")
    path.write_bytes(path.read_bytes()[:900])

    with pytest.raises(UnusablePicture, match="damaged or was cut short") as refused:
        read(path)
    assert "PATIENT" not in str(refused.value)
    assert refused.value.__cause__ is None
