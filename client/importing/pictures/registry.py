"""Readers of picture files, chosen by what a file begins with and not by what it is called."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from client.importing.pictures.dicom import DicomReader
from client.importing.pictures.nifti import NiftiReader
from client.importing.pictures.picture import Choices, PictureReader, Pixels, UnusablePicture
from client.importing.pictures.raster import RasterReader

_READERS: tuple[PictureReader, ...] = (RasterReader(), DicomReader(), NiftiReader())
_HEAD = 512
_TALKATIVE = ("PIL", "pydicom", "nibabel", "nibabel.global")
"""Loggers of the libraries that decode files. What they say may hold what a header holds."""


def read_picture(path: Path, choices: Choices) -> Pixels:
    """Read a PNG, JPEG, DICOM or NIfTI file.

    Parameters
    ----------
    path : Path
        The file.
    choices : Choices
        What to take where a file holds more than one picture.

    Returns
    -------
    ndarray
        (H, W) grey or (H, W, 3) red, green and blue, uint8.

    Raises
    ------
    UnusablePicture
        With a reason that names neither the file nor anything in it.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except FileNotFoundError:
        raise UnusablePicture("there is no such file") from None
    except IsADirectoryError:
        raise UnusablePicture("it is a folder, not a file") from None
    except (OSError, ValueError):
        # ValueError is what a path with a null byte raises.
        raise UnusablePicture("the file cannot be read; check its permissions and its disk") from None
    if not head:
        raise UnusablePicture("the file is empty")
    reader = next((reader for reader in _READERS if reader.recognises(head)), None)
    if reader is None:
        raise UnusablePicture("it is no PNG, JPEG, DICOM or NIfTI file")
    try:
        with _silenced():
            return reader.read(path, choices)
    except UnusablePicture:
        raise
    except Exception:
        # Decoders raise whatever a damaged file leads them to, with the file's own words in the message.
        raise UnusablePicture("the file is damaged or was cut short") from None


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
