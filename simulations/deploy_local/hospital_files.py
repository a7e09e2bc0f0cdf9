"""What three hospitals have on their disks: pictures with a CSV manifest at the first, `.npz` files at the others."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fedmunkey.client.records.dataset import Consent, Dataset, Split

HOSPITALS = ("hospital-1", "hospital-2", "hospital-3")
PATIENT = "patient-1"
"""Has records at the first two hospitals, and none at the third."""

MANIFEST = "scans.csv"
_TRAIN, _TEST = 150, 40
_EACH = 3
"""Records of a patient at a hospital."""


@dataclass(frozen=True)
class HospitalFiles:
    """What was written: an image's shape as `--image-shape` takes it, names of the classes, and a picture to ask about.

    No hospital trains on the picture, whose path is relative to the folder. `PATIENT` has so many training records.
    """

    shape: str
    class_names: tuple[str, ...]
    picture: str
    records: int


def write_hospital_files(data: Dataset, folder: Path) -> HospitalFiles:
    """Divide a data set's records among the hospitals and write them as each keeps them.

    Each has a folder of its own in the folder; a few hundred training records give all of them some. Two patients of
    three have given their records for good. Ids are made up: the sets that anybody may use have none.
    """
    train = _shared_out(data.split(Split.TRAIN), _TRAIN)
    test = _shared_out(data.split(Split.TEST), _TEST)
    records = 0
    for number, hospital in enumerate(HOSPITALS):
        subjects = [_patient(number, row) for row in range(len(train[number]))]
        records += subjects.count(PATIENT)
        files = folder / f"{hospital}-files"
        files.mkdir()
        if number == 0:
            _write_pictures(train[number], test[number], subjects, files)
        else:
            _write_npz(hospital, train[number], test[number], subjects, files / "records.npz")
    shape = "x".join(str(size) for size in data.image_shape)
    picture = f"{HOSPITALS[0]}-files/{_picture(Split.TEST, 0)}"
    return HospitalFiles(shape, data.class_names, picture, records)


def _shared_out(data: Dataset, most: int) -> list[Dataset]:
    """Give each hospital every third record, up to some number of them."""
    return [data.select(np.arange(first, len(data), len(HOSPITALS))[:most]) for first in range(len(HOSPITALS))]


def _patient(hospital: int, row: int) -> str:
    if row < _EACH and hospital < 2:
        return PATIENT
    return f"patient-{1000 * (hospital + 1) + row // _EACH}"


def _consent(subject: str) -> Consent:
    number = int(subject.removeprefix("patient-"))
    return Consent.REVOCABLE if number % 3 == 1 else Consent.PERMANENT


def _picture(split: Split, row: int) -> str:
    return f"{split.value}-{row:03d}.png"


def _write_pictures(train: Dataset, test: Dataset, subjects: list[str], folder: Path) -> None:
    rows = []
    for data, split in ((train, Split.TRAIN), (test, Split.TEST)):
        for row, image in enumerate(data.images):
            name = _picture(split, row)
            Image.fromarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)).save(folder / name)
            subject = subjects[row] if split is Split.TRAIN else f"volunteer-{row}"
            consent = _consent(subject) if split is Split.TRAIN else Consent.PERMANENT
            record = f"{HOSPITALS[0]}-{split.value}-{row}"
            label = data.class_names[int(data.labels[row])]
            rows.append([name, label, record, subject, consent.value, split.value])
    with (folder / MANIFEST).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "record_id", "subject_id", "consent", "split"])
        writer.writerows(rows)


def _write_npz(hospital: str, train: Dataset, test: Dataset, subjects: list[str], path: Path) -> None:
    np.savez(
        path,
        train_images=_pixels(train),
        train_labels=train.labels,
        train_ids=np.array([f"{hospital}-train-{row}" for row in range(len(train))]),
        train_subjects=np.array(subjects),
        train_consents=np.array([_consent(subject).value for subject in subjects]),
        test_images=_pixels(test),
        test_labels=test.labels,
        test_ids=np.array([f"{hospital}-test-{row}" for row in range(len(test))]),
        test_subjects=np.array([f"{hospital}-volunteer-{row}" for row in range(len(test))]),
        class_names=np.array(train.class_names),
    )


def _pixels(data: Dataset) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return images as the layout has them: (N, H, W), or (N, H, W, 3)."""
    return data.images[:, 0] if data.images.shape[1] == 1 else np.moveaxis(data.images, 1, -1)
