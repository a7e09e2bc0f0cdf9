"""Readers of picture files, chosen by what a file begins with and not by what it is called."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from fedmunkey.client.importing.pictures.picture import Choices, Picture, Pixels, Remark, UnusablePicture, is_flat
from fedmunkey.client.importing.pictures.signatures import (
    HEAD,
    is_dicom,
    is_nifti,
    is_png_or_jpeg,
    reason_of_another,
)

# Decoders are imported when the first file of their format comes: most commands never see one.
_READERS = ((is_png_or_jpeg, "raster"), (is_dicom, "dicom"), (is_nifti, "nifti"))
"""What tells a format by a file's beginning, and the module beside this one whose `read` decodes it."""

_TALKATIVE = ("PIL", "pydicom", "nibabel", "nibabel.global", "libjpeg", "openjpeg")
"""Loggers of the libraries that decode files. What they say may hold what a header holds."""


def read_picture(path: Path, choices: Choices) -> Pixels:
    """Return the pixels of a file, as `open_picture`."""
    return open_picture(path, choices).array()


def open_picture(path: Path, choices: Choices) -> Picture:
    """Read a PNG, JPEG, DICOM or NIfTI file.

    Raises `UnusablePicture` with a reason that names neither the file nor anything in it.
    """
    head = _read_head(path)
    name = next((name for recognises, name in _READERS if recognises(head)), None)
    if name is None:
        raise UnusablePicture(reason_of_another(head, path.name))
    try:
        with _silenced():
            _check_unpacked(name, path, head)
            picture: Picture = import_module(f"{__package__}.{name}").read(path, choices)
    except UnusablePicture:
        raise
    except MemoryError:
        raise UnusablePicture("there is not enough memory to decode it; make it smaller") from None
    except Exception:
        # Decoders raise whatever a damaged file leads them to, with the file's own words in the message.
        raise UnusablePicture("the file is damaged or was cut short") from None
    remarks = (Remark.FLAT,) if is_flat(picture.pixels) else ()
    return Picture(picture.pixels, (*picture.remarks, *remarks))


def _read_head(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            # Whoever opens a pipe waits for what may never come.
            raise UnusablePicture("it is a folder, a pipe or a device, not a file")
        with path.open("rb") as file:
            head = file.read(HEAD)
    except FileNotFoundError:
        raise UnusablePicture("there is no such file") from None
    except (OSError, ValueError):
        # ValueError is what a path with a null byte raises.
        raise UnusablePicture("the file cannot be read; check its permissions and its disk") from None
    if not head:
        raise UnusablePicture("the file is empty")
    return head


def _check_unpacked(name: str, path: Path, head: bytes) -> None:
    if name != "raster":
        # Of PNG and JPEG, Pillow reads the size first.
        import_module(f"{__package__}.unpacking").check_unpacked(path, head)


@contextmanager
def _silenced() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    before = [logger.disabled for logger in loggers]
    try:
        for logger in loggers:
            logger.disabled = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, was in zip(loggers, before, strict=True):
            logger.disabled = was
