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


def hospital_of(name: str, images: NDArray[np.uint8], labels: Sequence[int], splits: Sequence[Split]) -> Hospital:
    """Return a hospital of (N, C, H, W) images of two classes, each of which has a key unlike all others."""
    count = len(images)
    ids = np.array([f"{name}-{row}" for row in range(count)])
    records = Dataset(
        images=images,
        labels=np.array(labels, dtype=np.int64),
        record_ids=ids,
        subject_ids=ids,
        splits=np.array([split.value for split in splits]),
        consents=np.full(count, Consent.REVOCABLE.value),
        class_names=("benign", "malignant"),
    )
    keys = torch.nn.functional.one_hot(torch.arange(count), 128).float()
    return Hospital(name, SiteFolder(Path(name)), Encoded(records, Encoding(keys, torch.zeros(count, 1, 1))))
