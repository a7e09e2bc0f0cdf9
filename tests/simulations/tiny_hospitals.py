"""Hospitals whose images are a pixel or two, for tests that look at records and not at pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.model.encoders import Encoding
from fedmunkey.simulations.federation.hospitals import Encoded, Hospital


def records_of(
    name: str,
    splits: Sequence[str],
    *,
    images: NDArray[np.uint8] | None = None,
    labels: Sequence[int] | None = None,
    subjects: Sequence[str] | None = None,
    class_names: tuple[str, ...] = ("only",),
) -> Dataset:
    """Return revocable records; unless said otherwise of a black pixel, the first class and a subject each."""
    count = len(splits)
    ids = np.array([f"{name}-{row}" for row in range(count)])
    return Dataset(
        images=np.zeros((count, 1, 1, 1), dtype=np.uint8) if images is None else images,
        labels=np.array([0] * count if labels is None else labels, dtype=np.int64),
        record_ids=ids,
        subject_ids=ids if subjects is None else np.array(subjects),
        splits=np.array([str(split) for split in splits]),
        consents=np.full(count, Consent.REVOCABLE.value),
        class_names=class_names,
    )


def hospital_of(name: str, images: NDArray[np.uint8], labels: Sequence[int], splits: Sequence[Split]) -> Hospital:
    """Return a hospital of (N, C, H, W) images of two classes, each of which has a key unlike all others."""
    records = records_of(name, splits, images=images, labels=labels, class_names=("benign", "malignant"))
    keys = torch.nn.functional.one_hot(torch.arange(len(records)), 128).float()
    return hospital_with(name, records, keys)


def hospital_with(name: str, records: Dataset, keys: torch.Tensor) -> Hospital:
    """Return a hospital of records with these keys, and no features."""
    return Hospital(name, SiteFolder(Path(name)), Encoded(records, Encoding(keys, torch.zeros(len(records), 1, 1))))
