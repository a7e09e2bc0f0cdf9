"""Real images as files give the keys that they have in the data set that they come from."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from fedmunkey.client.commands.enrol import enrol
from fedmunkey.client.commands.import_ import import_
from fedmunkey.client.records.dataset import Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.references import FederationSecret

from .dicom_files import write_dicom

BREASTMNIST = Path(__file__).parents[4] / "shared/data/breastmnist.npz"
COUNT = 12

pytestmark = pytest.mark.skipif(not BREASTMNIST.exists(), reason="the data set is not here")


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    Image.fromarray(image).save(path, format="PNG")


def write_nifti(path: Path, image: NDArray[np.uint8]) -> None:
    # Turned so that it is shown as it was.
    nibabel.save(nibabel.Nifti1Image(image.T[:, :, None], np.diag([-1.0, -1.0, 1.0, 1.0])), path.with_suffix(".nii"))
    path.with_suffix(".nii").rename(path)


def write_inverted_dicom(path: Path, image: NDArray[np.uint8]) -> None:
    write_dicom(path, 255 - image, PhotometricInterpretation="MONOCHROME1")


def write_windowed_dicom(path: Path, image: NDArray[np.uint8]) -> None:
    # A window of 256 values around 127.5 + 0.5 shows 0 to 255 as they are (PS3.3 C.11.2.1.2.1).
    stored = image.astype(np.uint16) + 1000
    write_dicom(path, stored, RescaleSlope=1, RescaleIntercept=-1000, WindowCenter=128, WindowWidth=256)


WRITERS: list[Any] = [write_png, write_dicom, write_inverted_dicom, write_windowed_dicom, write_nifti]


def keys(folder: Path) -> tuple[torch.Tensor, list[tuple[str, str]]]:
    """Return keys and ids of a site, in the order of their entries."""
    with SiteFolder(folder).open() as store:
        entries, _ = store.records.read_entries(Split.TRAIN)
        return store.records.read_keys(entries), store.records.read_ids(entries)


def test_files_of_every_format_have_the_keys_of_the_data_set(tmp_path: Path) -> None:
    with np.load(BREASTMNIST) as arrays:
        images, labels = arrays["train_images"][:COUNT], arrays["train_labels"][:COUNT]
    nothing = {"test_images": images[:0], "test_labels": labels[:0]}
    ids = np.array([f"train-{row}" for row in range(COUNT)])
    np.savez(tmp_path / "breastmnist.npz", train_images=images, train_labels=labels, train_ids=ids, **nothing)
    with (tmp_path / "scans.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "record_id", "subject_id", "split"])
        for row, image in enumerate(images):
            WRITERS[row % len(WRITERS)](tmp_path / f"image-{row}", image)
            table.writerow([f"image-{row}", int(labels[row, 0]), f"train-{row}", f"train-{row}", "train"])
    FederationSecret.generate().write(tmp_path / "secret")

    secret, manifest = tmp_path / "secret", tmp_path / "scans.csv"
    enrol(site_dir=tmp_path / "a", site="a", data=tmp_path / "breastmnist.npz", secret=secret)
    import_(manifest=manifest, site_dir=tmp_path / "b", site="b", secret=secret, image_shape="1x28x28")

    (enrolled, names), (imported, same_names) = keys(tmp_path / "a"), keys(tmp_path / "b")
    assert names == same_names
    assert len(enrolled) == COUNT
    assert torch.equal(enrolled, imported)
