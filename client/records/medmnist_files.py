"""Read image data sets in the MedMNIST layout: one `.npz` file with arrays for each split (Yang et al. 2023).

Beside MedMNIST's own `{split}_images` and `{split}_labels` a file may hold `{split}_subjects` (which patient a record
is about), `{split}_consents` (values of `Consent`), `{split}_ids` (record ids), `{split}_sources` (which hospital,
scanner or smear a record came from; simulations divide records by it) and `class_names`.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.common.errors import InvalidDataset

# NotImplementedError and RuntimeError are zipfile's answers to compressions and encryptions that it does not know.
_UNREADABLE = (
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)

_MOST_UNPACKED = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
"""Bytes of an array; all images are copied together once they are read."""


@dataclass(frozen=True, eq=False)
class ArrayFile:
    """What an array file holds, and what of it the file leaves to whoever reads it.

    Attributes
    ----------
    dataset : Dataset
        The records. One without an id is called `{split}-{row}`, a subject with the number 7 `subject-7`.
    rows : ndarray
        (N,) str, where each record stands: its split and its row in that, from 0.
    unnamed, numbered, alone : ndarray
        (N,) bool: records without an id; subjects with a number for a name; records without a subject.
    class_names : tuple of str, optional
        The names of the classes where the file has them.
    """

    dataset: Dataset
    rows: NDArray[np.str_]
    unnamed: NDArray[np.bool_]
    numbered: NDArray[np.bool_]
    alone: NDArray[np.bool_]
    class_names: tuple[str, ...] | None


def read_npz(path: Path, *, consent: Consent = Consent.REVOCABLE) -> Dataset:
    """Return the records of a file in the MedMNIST layout, as `read_array_file`."""
    return read_array_file(path, consent=consent).dataset


def read_array_file(path: Path, *, consent: Consent = Consent.REVOCABLE) -> ArrayFile:
    """Read a data set from a file in the MedMNIST layout.

    It has `train_images`, `train_labels`, `test_images` and `test_labels`; the `val` arrays may be missing. Images are
    (N, H, W), (N, H, W, 1) or (N, H, W, 3) uint8, labels (N,) or (N, 1) whole numbers, subjects (N,) whole numbers or
    strings, as are sources, consents and ids (N,) strings, class names (C,) strings. `consent` is that of the records
    of a split without `{split}_consents`.

    The splits come one after the other. A record without an id is called `{split}-{row}`, a subject with the number 7
    `subject-7` in whichever split it appears, and a record without a subject is its own. Without `class_names` classes
    are called by their numbers. Arrays are read one at a time and never unpickled: at most all images and one split's
    are in memory together.

    Raises `InvalidDataset` if the file is absent or damaged, an array is missing or has the wrong type or shape, arrays
    differ in number, records have more than one label, there is no training record, or ids or class names come twice.
    """
    if not path.is_file():
        raise InvalidDataset(f"{path}: there is no such file; check the path of the data set")
    try:
        archive = zipfile.ZipFile(path)
    except PermissionError:
        raise InvalidDataset(f"{path}: the file may not be read; change its permissions") from None
    except _UNREADABLE:
        raise InvalidDataset(f"{path}: not an .npz file, or one that was cut short; fetch or write it again") from None
    with archive:
        return _File(path, archive, consent).read()


@dataclass(frozen=True)
class _File:
    """An open `.npz` file, the path that its faults are reported under, and the consent that it does not name."""

    path: Path
    archive: zipfile.ZipFile
    consent: Consent

    def read(self) -> ArrayFile:
        """Read all splits."""
        wanted = [split for split in Split if split is not Split.VAL or self._has_split(split)]
        parts = [self._columns(split) for split in wanted]
        counts = {split: len(part["labels"]) for split, part in zip(wanted, parts, strict=True)}
        if not counts[Split.TRAIN]:
            raise self._fault("holds no training record; a data set needs at least one")
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        sources = self._sources(counts)
        given = self._given_class_names()
        class_names = given or self._numbers(columns["labels"])
        images = self._images(counts)
        try:
            dataset = Dataset(images=images, class_names=class_names, sources=sources, **columns)
        except InvalidDataset as error:
            raise self._fault(str(error)) from None
        places = [f"{split}-{row}" for split, count in counts.items() for row in range(count)]
        return ArrayFile(
            dataset,
            rows=np.array(places, dtype=np.str_),
            unnamed=self._lacking("ids", counts),
            numbered=np.concatenate([np.full(n, self._is_numbered(split)) for split, n in counts.items()]),
            alone=self._lacking("subjects", counts),
            class_names=given,
        )

    def _lacking(self, column: str, counts: Mapping[Split, int]) -> NDArray[np.bool_]:
        return np.concatenate([np.full(n, not self._has(f"{split}_{column}")) for split, n in counts.items()])

    def _is_numbered(self, split: Split) -> bool:
        name = f"{split}_subjects"
        return self._has(name) and self._read(name).dtype.kind in "iu"

    def _has_split(self, split: Split) -> bool:
        return self._has(f"{split}_images") or self._has(f"{split}_labels")

    def _columns(self, split: Split) -> dict[str, NDArray[Any]]:
        """Return everything about one split's N records but their images."""
        labels = self._labels(f"{split}_labels")
        count = len(labels)
        record_ids = self._strings(f"{split}_ids", count)
        if record_ids is None:
            record_ids = np.array([f"{split}-{row}" for row in range(count)], dtype=np.str_)
        subject_ids = self._names(f"{split}_subjects", "subject", count)
        return {
            "labels": labels,
            "record_ids": record_ids,
            "subject_ids": record_ids if subject_ids is None else subject_ids,
            "splits": np.full(count, split.value),
            "consents": self._consents(f"{split}_consents", count),
        }

    def _labels(self, name: str) -> NDArray[np.int64]:
        labels = self._read(name)
        if labels.dtype.kind not in "iu":
            raise self._fault(f"{name} are {labels.dtype}; labels must be whole numbers, one class index a record")
        if labels.ndim == 2 and labels.shape[1] != 1:
            raise self._fault(
                f"{name} give {labels.shape[1]} labels to each record; choose a data set with one label a record"
            )
        if labels.ndim not in (1, 2):
            raise self._fault(f"{name} have the shape {labels.shape}; it must be (N,) or (N, 1)")
        return labels.reshape(len(labels)).astype(np.int64)

    def _sources(self, counts: Mapping[Split, int]) -> NDArray[np.str_] | None:
        """Return the sources of all records, an empty one in splits that have none; None without those of training."""
        found = {split: self._names(f"{split}_sources", "source", count) for split, count in counts.items()}
        if found[Split.TRAIN] is None:
            return None
        return np.concatenate([np.full(counts[split], "") if one is None else one for split, one in found.items()])

    def _names(self, name: str, what: str, count: int) -> NDArray[np.str_] | None:
        """Return a column of strings, or of whole numbers as `what-7`; None where the file has no such array."""
        if not self._has(name):
            return None
        values = self._read(name)
        if values.dtype.kind not in "iu":
            return self._strings(name, count)
        values = self._column(name, values, count)
        return np.array([f"{what}-{number}" for number in values.tolist()], dtype=np.str_)

    def _consents(self, name: str, count: int) -> NDArray[np.str_]:
        consents = self._strings(name, count)
        if consents is None:
            return np.full(count, self.consent.value)
        known = [consent.value for consent in Consent]
        unknown = consents[~np.isin(consents, known)]
        if len(unknown):
            raise self._fault(f"{name} hold {str(unknown[0])!r}; a consent is one of {', '.join(known)}")
        return consents

    def _given_class_names(self) -> tuple[str, ...] | None:
        names = self._strings("class_names")
        if names is None:
            return None
        if len({"".join(name.split()).casefold() for name in names.tolist()}) != len(names):
            raise self._fault("class_names hold a name twice; every class needs its own")
        return tuple(names.tolist())

    def _numbers(self, labels: NDArray[np.int64]) -> tuple[str, ...]:
        largest = int(labels.max())
        if largest >= len(labels):
            raise self._fault(
                f"label {largest} is no class index among {len(labels)} records; "
                "number the classes from 0 or add class_names"
            )
        return tuple(str(label) for label in range(largest + 1))

    def _strings(self, name: str, count: int | None = None) -> NDArray[np.str_] | None:
        """Return a column of strings, none of them empty, or None where the file has no such array."""
        if not self._has(name):
            return None
        strings = self._read(name)
        if strings.dtype.kind != "U":
            raise self._fault(f"{name} are {strings.dtype}; write them as an array of strings")
        strings = self._column(name, strings, count)
        # One empty subject would make a single patient of everyone whose subject is unknown.
        if (strings == "").any():
            raise self._fault(f"{name} are empty in row {int(np.argmax(strings == ''))}; give every row a value")
        return strings

    def _column(self, name: str, values: NDArray[Any], count: int | None) -> NDArray[Any]:
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim != 1:
            raise self._fault(f"{name} have the shape {values.shape}; it must be (N,)")
        if count is not None and len(values) != count:
            raise self._fault(f"there are {len(values)} {name} for {count} labels; give one to each record")
        return values

    def _images(self, counts: Mapping[Split, int]) -> NDArray[np.uint8]:
        """Read all images into one (N, C, H, W) array, one split at a time, training images first."""
        images = np.empty(0, dtype=np.uint8)
        start = 0
        for split, count in counts.items():
            part = self._split_images(f"{split}_images", count)
            if not start:
                images = np.empty((sum(counts.values()), *part.shape[1:]), dtype=np.uint8)
            if count and part.shape[1:] != images.shape[1:]:
                raise self._fault(
                    f"{split}_images are {_size(part)}, but the first split's are {_size(images)}; "
                    "bring all images to one size"
                )
            if count:
                images[start : start + count] = part
            start += count
        return images

    def _split_images(self, name: str, count: int) -> NDArray[np.uint8]:
        images = self._read(name)
        if images.dtype != np.uint8:
            raise self._fault(f"{name} are {images.dtype}; images must be uint8, from 0 to 255")
        if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
            raise self._fault(
                f"{name} have the shape {images.shape}; it must be (N, H, W) or (N, H, W, 3), volumes are not supported"
            )
        if len(images) != count:
            raise self._fault(f"there are {len(images)} {name} for {count} labels; give one label to each image")
        if count and not images.size:
            raise self._fault(f"{name} have the shape {images.shape}; an image needs at least one pixel")
        return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)

    def _has(self, name: str) -> bool:
        return f"{name}.npy" in self.archive.NameToInfo

    def _read(self, name: str) -> NDArray[Any]:
        if not self._has(name):
            raise self._fault(f"lacks the array {name}; see the MedMNIST layout for the arrays that a data set needs")
        size = self.archive.getinfo(f"{name}.npy").file_size
        if size > _MOST_UNPACKED:
            raise self._fault(
                f"{name} become {size} bytes when unpacked, more than fit into this machine's memory; divide them"
            )
        try:
            with self.archive.open(f"{name}.npy") as member:
                values: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
                # zipfile compares checksums at the end of a member only, which read_array stops just short of.
                if member.read(1):
                    raise ValueError("bytes after the end of the array")
        except _UNREADABLE as error:
            if "allow_pickle" in str(error):
                raise self._fault(f"{name} are Python objects; write them as an array of numbers or strings") from None
            raise self._fault(f"the array {name} is damaged ({_first_line(error)}); fetch or write it again") from None
        return values

    def _fault(self, text: str) -> InvalidDataset:
        return InvalidDataset(f"{self.path}: {text}")


def _size(images: NDArray[np.uint8]) -> str:
    return "x".join(str(number) for number in images.shape[1:])


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
