"""Find a data set by the name that a person gives: scikit-learn's digits, a file, or a download of MedMNIST's."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.client.records.medmnist_files import read_npz
from fedmunkey.common.errors import InvalidDataset
from fedmunkey.common.model.randomness import derive_seed
from fedmunkey.common.model.torchvision_import import import_torchvision

_DIGITS = "digits"
_DIGITS_TEST_RECORDS = 360
_DIGITS_VAL_RECORDS = 90
_DIGITS_WHITE = 16
_INSTALL = "pip install 'fedmunkey[medmnist]'"


def load_dataset(name: str, *, data_dir: Path | None, seed: int) -> Dataset:
    """Return the data set with the given name.

    `name` is `digits` (scikit-learn's 1797 handwritten digits), the path of a file in the MedMNIST layout, or a
    two-dimensional MedMNIST set with one label a record, such as `breastmnist`. That is looked for, and a download is
    kept, as `{name}.npz` in `data_dir`, `~/.medmnist` where there is none. The seed decides how the digits are split;
    files carry their own splits. Raises `InvalidDataset` if the name is unknown, a file cannot be used, the `medmnist`
    package is missing or a download fails.
    """
    if name == _DIGITS:
        return _digits(seed)
    path = Path(name)
    if path.suffix == ".npz" or path.is_file():
        return read_npz(path)
    folder = Path.home() / ".medmnist" if data_dir is None else data_dir
    catalogue = _Catalogue.installed()
    if catalogue is not None and name in catalogue.entries:
        return catalogue.load(name, folder)
    if (folder / f"{name}.npz").is_file():
        return read_npz(folder / f"{name}.npz")
    if catalogue is None and "mnist" in name:
        raise InvalidDataset(f"{name} needs the medmnist package: {_INSTALL}, or give the path of an .npz file")
    raise _unknown(name, catalogue)


def _digits(seed: int) -> Dataset:
    """Return 1347 train, 90 val and 360 test images of 8x8 pixels, each split with the same mixture of labels.

    The set does not say who wrote a digit, so each record is its own subject.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    rows = np.arange(len(digits.target))
    splits = np.full(len(rows), Split.TRAIN.value)
    for split, count in ((Split.TEST, _DIGITS_TEST_RECORDS), (Split.VAL, _DIGITS_VAL_RECORDS)):
        free = rows[splits == Split.TRAIN.value]
        _, taken = train_test_split(
            free,
            test_size=count,
            stratify=digits.target[free],
            random_state=derive_seed(seed, "digits", split.value) % 2**32,
        )
        splits[taken] = split.value
    record_ids = np.array([f"digit-{row}" for row in rows])
    return Dataset(
        images=np.rint(digits.images * (255 / _DIGITS_WHITE)).astype(np.uint8)[:, None],
        labels=digits.target.astype(np.int64),
        record_ids=record_ids,
        subject_ids=record_ids,
        splits=splits,
        consents=np.full(len(rows), Consent.REVOCABLE.value),
        class_names=tuple(str(name) for name in digits.target_names),
    )


@dataclass(frozen=True)
class _Catalogue:
    """What the `medmnist` package offers.

    `entries` are MedMNIST's own descriptions of its sets, and `module` has the classes that download them.
    """

    entries: dict[str, dict[str, Any]]
    module: Any

    @classmethod
    def installed(cls) -> _Catalogue | None:
        """Return the catalogue, or None where the package is not installed or cannot be imported."""
        try:
            import_torchvision()
            module = importlib.import_module("medmnist.dataset")
            return cls(importlib.import_module("medmnist.info").INFO, module)
        except ImportError:
            return None

    def usable(self) -> list[str]:
        """Name the sets with two-dimensional images and one label a record."""
        return [name for name, entry in self.entries.items() if not _obstacle(entry)]

    def load(self, name: str, folder: Path) -> Dataset:
        """Read one set with its class names, downloading it unless the folder has it."""
        entry = self.entries[name]
        obstacle = _obstacle(entry)
        if obstacle:
            raise InvalidDataset(f"{name} {obstacle}, which is not supported; choose from {', '.join(self.usable())}")
        path = folder / f"{name}.npz"
        if not path.is_file():
            self._download(name, path)
        dataset = read_npz(path)
        class_names = tuple(label for _, label in sorted(entry["label"].items(), key=lambda item: int(item[0])))
        if len(class_names) < dataset.num_classes:
            raise InvalidDataset(
                f"{path}: has {dataset.num_classes} classes, but {name} has {len(class_names)}; "
                "remove the file to download the set again, or give it by its path"
            )
        return dataclasses.replace(dataset, class_names=class_names)

    def _download(self, name: str, path: Path) -> None:
        entry = self.entries[name]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A download that is cut short must not be taken for the set by the next run.
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                getattr(self.module, entry["python_class"])(split=Split.TEST.value, download=True, root=folder)
                (Path(folder) / path.name).replace(path)
        except (OSError, RuntimeError) as error:
            # medmnist puts several lines of advice in place of the error that it caught.
            cause = str(error.__context__ or error).strip().splitlines() or [type(error).__name__]
            raise InvalidDataset(
                f"{name} could not be downloaded to {path} ({cause[0]}); "
                f"check the network, or fetch {entry['url']} and give the file's path"
            ) from None


def _obstacle(entry: dict[str, Any]) -> str:
    """Say what keeps a MedMNIST set from being used; empty if nothing does."""
    if entry["python_class"].endswith("3D"):
        return "has volumes in place of images"
    if "multi-label" in entry["task"]:
        return "has more than one label a record"
    return ""


def _unknown(name: str, catalogue: _Catalogue | None) -> InvalidDataset:
    known = [_DIGITS, *(catalogue.usable() if catalogue else [])]
    close = difflib.get_close_matches(name, known, n=1)
    suggestion = f" (did you mean {close[0]}?)" if close else ""
    medmnist = ", ".join(known[1:]) or f"a MedMNIST name ({_INSTALL})"
    return InvalidDataset(
        f"unknown data set {name!r}{suggestion}; give {_DIGITS}, {medmnist}, or the path of an .npz file"
    )
