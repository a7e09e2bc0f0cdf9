"""PNG and JPEG files."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fedmunkey.client.importing.pictures.picture import (
    DEEPEST,
    Choices,
    Picture,
    Pixels,
    UnusablePicture,
    check_size,
    extrema,
    row_blocks,
    stretch,
    too_large,
)

_GREY, _DEEP, _COLOUR = ("1", "L"), ("I", "I;16", "I;16B", "I;16L"), ("P", "RGB", "YCbCr")
_GREY_WITH_ALPHA = ("1", "L", "LA", "La")
_TRANSPARENT = ("LA", "PA", "RGBA", "La", "RGBa")
_BYTE, _JPEG_DEEP = 8, 12
_PNG_DEPTH_AT = 24
"""Where a PNG file says how many bits a value has (PNG 11.2.1, IHDR)."""

_PNG = b"\x89PNG\r\n\x1a\n"
_SHOWING = (b"tRNS", b"eXIf")
"""Chunks that a PNG may do without, and that decide what is shown."""

_LONGEST_READ = 1 << 20

_JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_JPEG_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})


def read(path: Path, choices: Choices) -> Picture:
    """Decode PNG of 1 to 16 bits, grey, colour or with a palette, and JPEG, turned as its camera says.

    Values of more than 8 bits are brought to 8 with one scale for every file: the largest number of as many bits as
    were chosen becomes 255. Without a choice it is 65535, if the file uses the highest of the 16 bits.
    """
    depth = _depth(path)
    if depth == _JPEG_DEEP:
        raise UnusablePicture("the JPEG file has 12 bits, for which there is no decoder; export it with 8, or as DICOM")
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            check_size(*image.size)
            if getattr(image, "n_frames", 1) != 1:
                raise UnusablePicture("the file holds several frames; export the one that is meant")
            _check_chunks(path)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return Picture(_values(image, choices, deep=depth == DEEPEST))
    except Image.DecompressionBombError:
        raise too_large() from None


def _values(image: Image.Image, choices: Choices, *, deep: bool) -> Pixels | Image.Image:
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        return _checked_depth(_opaque(image), deep=deep)
    if image.mode in _GREY:
        return _grey(image)
    if image.mode in _DEEP:
        return _brought_to_eight(image, choices)
    if image.mode in _COLOUR:
        return _checked_depth(_coloured(image), deep=deep)
    raise UnusablePicture(f"the picture has the colour model {image.mode}; save it as grey or RGB")


def _grey(image: Image.Image) -> Pixels:
    """Return an image's grey values, copied a few rows at a time: the library makes several copies of what it gives."""
    width, height = image.size
    values = np.empty((height, width), dtype=np.uint8)
    for rows in row_blocks(height, width):
        values[rows] = np.asarray(image.crop((0, rows.start, width, rows.stop)).convert("L"))
    return values


def _brought_to_eight(image: Image.Image, choices: Choices) -> Pixels:
    width, height = image.size
    blocks = list(row_blocks(height, width))
    strips = (np.asarray(image.crop((0, rows.start, width, rows.stop))) for rows in blocks)
    largest = max(int(strip.max()) for strip in strips)
    bits = choices.bits
    if bits is None:
        if largest and largest < 1 << (DEEPEST - 1):
            raise UnusablePicture(
                f"its 16 bits hold values of at most {largest.bit_length()}, which would be shown too dark; say with "
                "--bits how many the scanner gives, such as --bits 12"
            )
        bits = DEEPEST
    if largest >= 1 << bits:
        raise UnusablePicture(f"it holds values of more than the {bits} bits that --bits gives; give more")
    shown = np.empty((height, width), dtype=np.uint8)
    for rows in blocks:
        strip = np.asarray(image.crop((0, rows.start, width, rows.stop)))
        shown[rows] = stretch(strip, 0.0, float((1 << bits) - 1))
    return shown


def _coloured(image: Image.Image) -> Image.Image:
    """Return an image of any colours, none of them transparent, as one of mode RGB or RGBA; that is not copied."""
    return image if image.mode in ("RGB", "RGBA") else image.convert("RGB")


def _checked_depth(values: Pixels | Image.Image, *, deep: bool) -> Pixels | Image.Image:
    """Refuse colours, or grey with alpha, of 16 bits of which the library's upper 8 hold little."""
    if deep and 0 < int(np.max(extrema(values) if isinstance(values, Image.Image) else values)) < 1 << (_BYTE - 1):
        raise UnusablePicture(
            "the highest of its 16 bits are not used, so it would be shown too dark; export it with 8"
        )
    return values


def _opaque(image: Image.Image) -> Pixels | Image.Image:
    width, height = image.size
    parts = (image.crop((0, rows.start, width, rows.stop)) for rows in row_blocks(height, width))
    if any(strip.convert("RGBA").getchannel("A").getextrema() != (255, 255) for strip in parts):
        # What shows through would be a choice of ours.
        raise UnusablePicture("the picture is partly transparent; save it without an alpha channel")
    return _grey(image) if image.mode in _GREY_WITH_ALPHA else _coloured(image)


def _check_chunks(path: Path) -> None:
    """Compare the checksums of a PNG's chunks that decide what is shown; the library stops before those of pixels."""
    with path.open("rb") as file:
        if file.read(len(_PNG)) != _PNG:
            return
        name = b""
        while name != b"IEND":
            length, name = int.from_bytes(file.read(4)), file.read(4)
            found = zlib.crc32(name)
            while length > 0 and (content := file.read(min(length, _LONGEST_READ))):
                found, length = zlib.crc32(content, found), length - len(content)
            ancillary = name[:1].islower() and name not in _SHOWING
            if not name or length or (int.from_bytes(file.read(4)) != found and not ancillary):
                raise UnusablePicture("the file is damaged or was cut short")


def _depth(path: Path) -> int:
    """Return how many bits a value has, as the file says; 8 if it does not say."""
    with path.open("rb") as file:
        head = file.read(_PNG_DEPTH_AT + 1)
        if not head.startswith(b"\xff\xd8"):
            return head[-1] if len(head) > _PNG_DEPTH_AT else _BYTE
        file.seek(2)
        while len(marker := file.read(2)) == 2 and marker[0] == 0xFF:
            if marker[1] in _JPEG_STANDALONE:
                continue
            if marker[1] == 0xFF:
                file.seek(-1, 1)
                continue
            length = int.from_bytes(file.read(2))
            if marker[1] in _JPEG_FRAMES:
                return int.from_bytes(file.read(1)) or _BYTE
            file.seek(length - 2, 1)
    return _BYTE
