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
_NIFTI = {348: (1, 344, b"n+1\0"), 540: (2, 4, b"n+2\0")}
"""By the length of a header: its version, where its magic stands, and what that is of a single file."""


def is_png_or_jpeg(head: bytes) -> bool:
    """Look for the signature of either."""
    return head.startswith((_PNG, _JPEG))


def is_dicom(head: bytes) -> bool:
    """Look for the mark after the preamble (DICOM PS3.10, section 7.1)."""
    return head[_DICOM_AT : _DICOM_AT + len(_DICOM)] == _DICOM


def is_nifti(head: bytes) -> bool:
    """Look for the header's length and magic, within a gzip stream too."""
    return nifti_version(head) is not None


def nifti_version(head: bytes) -> int | None:
    """Return 1 or 2 for a single NIfTI file, gzipped or not, and None for anything else."""
    if head.startswith(GZIP):
        head = _unzipped(head)
    for order in "<>":
        length = struct.unpack(f"{order}i", head[:4])[0] if len(head) >= 4 else 0
        version, where, magic = _NIFTI.get(length, (None, 0, b""))
        if version is not None and head[where : where + len(magic)] == magic:
            return version
    return None


def _unzipped(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(head, HEAD)
    except zlib.error:
        return b""
