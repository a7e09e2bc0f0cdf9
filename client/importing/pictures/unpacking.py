"""How much a compressed picture file becomes, found out before any of it is kept: a bomb is small until it is read."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

from pydicom.filereader import _read_file_meta_info, read_preamble

from fedmunkey.client.importing.pictures.picture import UnusablePicture
from fedmunkey.client.importing.pictures.signatures import GZIP, is_dicom, nifti_version, unpacked_head

MOST_UNPACKED = 256 * 2**20
"""Bytes of a deflated DICOM data set; pydicom inflates all of it at once."""

MOST_VOLUME = 2**30
"""Bytes of a gzipped NIfTI volume; of some, a slice is found in all of it only."""

MOST_EXTENSIONS = 16 * 2**20
"""Bytes before the values of a NIfTI file, which nibabel keeps."""

_PART = 2**16
_SECOND = 2


def check_unpacked(path: Path, head: bytes) -> None:
    """Check what a file that begins with `head` becomes; raises `UnusablePicture` if that is too much."""
    if is_dicom(head):
        _check_deflated(path)
    elif (version := nifti_version(head)) is not None:
        _check_volume(head, version)


def _check_deflated(path: Path) -> None:
    with path.open("rb") as file:
        read_preamble(file, force=True)
        # Where what is deflated begins, pydicom says nowhere in public.
        syntax = _read_file_meta_info(file).get("TransferSyntaxUID")
        if syntax is None or not syntax.is_deflated:
            return
        inflating = zlib.decompressobj(-zlib.MAX_WBITS)
        size = 0
        while not inflating.eof and (part := inflating.unconsumed_tail or file.read(_PART)):
            size += len(inflating.decompress(part, _PART))
            if size > MOST_UNPACKED:
                raise UnusablePicture(
                    f"the DICOM file becomes more than {MOST_UNPACKED // 2**20} MiB when it is inflated; "
                    "export it uncompressed"
                )


def _check_volume(head: bytes, version: int) -> None:
    packed = head.startswith(GZIP)
    known = unpacked_head(head)
    first = 348 if version != _SECOND else 540
    order = "<" if struct.unpack("<i", known[:4])[0] == first else ">"
    if version == _SECOND:
        (bits,) = struct.unpack(f"{order}h", known[14:16])
        sides = struct.unpack(f"{order}8q", known[16:80])
        (offset,) = struct.unpack(f"{order}q", known[168:176])
    else:
        sides = struct.unpack(f"{order}8h", known[40:56])
        (bits,) = struct.unpack(f"{order}h", known[72:74])
        (offset,) = struct.unpack(f"{order}f", known[108:112])
    if not offset <= MOST_EXTENSIONS:
        raise UnusablePicture(
            f"the NIfTI file says that its values follow more than {MOST_EXTENSIONS // 2**20} MiB of something else; "
            "save it without extensions"
        )
    size = math.prod(max(1, side) for side in sides[1 : 1 + max(0, min(7, sides[0]))]) * max(8, bits) // 8
    if packed and size > MOST_VOLUME:
        raise UnusablePicture(
            f"the NIfTI file becomes more than {MOST_VOLUME // 2**20} MiB when it is unpacked; save it unpacked, or "
            "only the slice that is meant"
        )
