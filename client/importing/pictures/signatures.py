"""What files of each format begin with; told without the libraries that decode them, which take long to import."""

from __future__ import annotations

import struct
import zlib

HEAD = 512
"""Bytes of a file's beginning that tell its format."""

GZIP = b"\x1f\x8b"
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_DICOM_AT, _DICOM = 128, b"DICM"
_META_INFORMATION = b"\x02\x00\x00\x00UL\x04\x00"
"""The first element of a DICOM file's meta information (PS3.10, section 7.1)."""

_NIFTI = {348: (1, 344, b"n+1\0"), 540: (2, 4, b"n+2\0")}
"""By the length of a header: its version, where its magic stands, and what that is of a single file."""

_PAIRS = {348: (344, b"ni1\0"), 540: (4, b"ni2\0")}
_PAIR = "it is one half of a NIfTI or Analyze pair (.hdr and .img); save both as one .nii file"
_BARE = "it is DICOM without the preamble and the header of a file (PS3.10); export it as a DICOM file"
_OTHERS = (
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"II*\0", "a TIFF"),
    (b"MM\0*", "a TIFF"),
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a zip archive or an office document"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (b"\xffO\xffQ", "a JPEG 2000"),
)
_RIFF, _WEBP = b"RIFF", b"WEBP"


def is_png_or_jpeg(head: bytes) -> bool:
    """Look for the signature of either."""
    return head.startswith((_PNG, _JPEG))


def is_dicom(head: bytes) -> bool:
    """Look for the mark after the preamble (DICOM PS3.10, section 7.1), or what stands after it."""
    return has_preamble(head) or head.startswith(_META_INFORMATION)


def has_preamble(head: bytes) -> bool:
    """Return whether a DICOM file has a preamble and its mark; without, the file's own header may still be there."""
    return head[_DICOM_AT : _DICOM_AT + len(_DICOM)] == _DICOM


def is_nifti(head: bytes) -> bool:
    """Look for the header's length and magic, within a gzip stream too."""
    return nifti_version(head) is not None


def nifti_version(head: bytes) -> int | None:
    """Return 1 or 2 for a single NIfTI file, gzipped or not, and None for anything else."""
    head = unpacked_head(head)
    for length in _header_lengths(head):
        version, where, magic = _NIFTI.get(length, (None, 0, b""))
        if version is not None and head[where : where + len(magic)] == magic:
            return version
    return None


def reason_of_another(head: bytes, name: str) -> str:
    """Return what a file is that none of the readers takes, by how it begins or ends its name, and the way out."""
    inside = unpacked_head(head)
    if name.lower().endswith(".img") or any(_is_pair(inside, length) for length in _header_lengths(inside)):
        return _PAIR
    if head.startswith(GZIP) and (is_dicom(inside) or is_png_or_jpeg(inside)):
        return "it is a picture packed with gzip; unpack it"
    if _is_bare_dicom(inside):
        return _BARE
    found = next((words for beginning, words in _OTHERS if head.startswith(beginning)), "")
    if head.startswith(_RIFF) and head[8:12] == _WEBP:
        found = "a WebP"
    return f"it is no PNG, JPEG, DICOM or NIfTI file{f' but {found}' if found else ''}; export it as one of these"


def _is_pair(head: bytes, length: int) -> bool:
    where, magic = _PAIRS.get(length, (0, b""))
    # An Analyze header has NIfTI-1's length and number of dimensions, and no magic.
    dimensions = max(head[40:42], default=0)
    return bool(magic) and (head[where : where + len(magic)] == magic or (length == 348 and 1 <= dimensions <= 7))


def _is_bare_dicom(head: bytes) -> bool:
    """Look for a first element of group 8 with a value representation, or a short value, in either order of bytes."""
    if len(head) < 8 or head[:2] not in (b"\x08\0", b"\0\x08"):
        return False
    little = head[:2] == b"\x08\0"
    element = int.from_bytes(head[2:4], "little" if little else "big")
    length = int.from_bytes(head[4:8], "little" if little else "big")
    return element <= 0x20 and (head[4:6].isalpha() or length <= 64)


def _header_lengths(head: bytes) -> tuple[int, ...]:
    return tuple(struct.unpack(f"{order}i", head[:4])[0] for order in "<>") if len(head) >= 4 else ()


def unpacked_head(head: bytes) -> bytes:
    """Return how a file begins once it is unpacked, at most `HEAD` bytes; nothing where it cannot be unpacked."""
    if not head.startswith(GZIP):
        return head
    try:
        return zlib.decompressobj(wbits=31).decompress(head, HEAD)
    except zlib.error:
        return b""
