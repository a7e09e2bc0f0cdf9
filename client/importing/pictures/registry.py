"""Readers of picture files, chosen by what a file begins with and not by what it is called."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from client.importing.pictures.picture import Choices, PictureReader, Pixels, UnusablePicture
from client.importing.pictures.signatures import HEAD, is_dicom, is_nifti, is_png_or_jpeg

_TALKATIVE = ("PIL", "pydicom", "nibabel", "nibabel.global")
"""Loggers of the libraries that decode files. What they say may hold what a header holds."""


def read_picture(path: Path, choices: Choices) -> Pixels:
    """Read a PNG, JPEG, DICOM or NIfTI file.

    Raises `UnusablePicture` with a reason that names neither the file nor anything in it.
    """
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
    make = next((make for recognises, make in _READERS if recognises(head)), None)
    if make is None:
        raise UnusablePicture("it is no PNG, JPEG, DICOM or NIfTI file")
    try:
        with _silenced():
            return make().read(path, choices)
    except UnusablePicture:
        raise
    except Exception:
        # Decoders raise whatever a damaged file leads them to, with the file's own words in the message.
        raise UnusablePicture("the file is damaged or was cut short") from None


# Decoders are imported when the first file of their format comes: most commands never see one.


def _raster() -> PictureReader:
    from client.importing.pictures.raster import RasterReader

    return RasterReader()


def _dicom() -> PictureReader:
    from client.importing.pictures.dicom import DicomReader

    return DicomReader()


def _nifti() -> PictureReader:
    from client.importing.pictures.nifti import NiftiReader

    return NiftiReader()


_READERS: tuple[tuple[Callable[[bytes], bool], Callable[[], PictureReader]], ...] = (
    (is_png_or_jpeg, _raster),
    (is_dicom, _dicom),
    (is_nifti, _nifti),
)


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
