"""A data set by name, encoded once, with the settings that follow from it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmunkey.client.records.dataset import Dataset, Split
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.model.model_choice import choose_encoder
from fedmunkey.common.settings.settings import Settings
from fedmunkey.common.settings.settings_text import ConfigValue
from fedmunkey.simulations.federation.hospitals import Encoded, encode_all
from fedmunkey.simulations.federation.sources import load_dataset
from fedmunkey.simulations.programs.machine import torch_threads, usable_cores
from fedmunkey.simulations.programs.progress import Progress

_FROM_DATA = "comes from the data set; leave it out"
FROM_DATA = {"image-shape": _FROM_DATA, "num-classes": _FROM_DATA}
"""Settings that follow from the data set, and what to say to who gives them."""


@dataclass(frozen=True)
class EncodedSet:
    """Records with what the frozen encoder makes of them.

    The name is the data set's, without its folder, and `encoder` a fingerprint. Settings are those asked for, with the
    data set's image shape and classes, and delta = 1 / (10 N) for N training records unless it was asked for.
    """

    name: str
    images: Encoded
    settings: Settings
    encoder: str

    def describe(self) -> dict[str, Any]:
        """Return the name, counts, classes, encoder, and a digest of the images and labels, JSON-ready."""
        records = self.images.records
        counts = {f"{split.value}": int((records.splits == split.value).sum()) for split in (Split.TRAIN, Split.TEST)}
        classes = list(records.class_names)
        return {
            "name": self.name,
            "records": len(records),
            **counts,
            "classes": classes,
            "encoder": self.encoder,
            "digest": dataset_digest(records),
        }


def load_encoded(
    data: str, overrides: Mapping[str, ConfigValue], data_dir: Path | None, progress: Progress
) -> EncodedSet:
    """Load a data set and encode its images with all cores.

    `data` is what `load_dataset` reads, and `overrides` are settings that differ from the defaults. Raises
    `InvalidSetting` if a setting is unknown or out of range, or follows from the data set; `InvalidDataset` if the data
    set cannot be used.
    """
    own = next((name for name in overrides if name in FROM_DATA), None)
    if own is not None:
        raise InvalidSetting(f"{own} = {overrides[own]}: {FROM_DATA[own]}")
    seed = Settings.parse(overrides).seed
    dataset = load_dataset(data, data_dir=data_dir, seed=seed)
    found: dict[str, ConfigValue] = {"num-classes": dataset.num_classes, "image-shape": str(dataset.image_shape)}
    if "delta" not in overrides:
        found["delta"] = 1 / (10 * int((dataset.splits == Split.TRAIN.value).sum()))
    settings = Settings.parse({**overrides, **found})
    encoder = choose_encoder(settings)
    name = Path(data).stem
    with torch_threads(usable_cores()), progress.counting(f"encoding {name}", len(dataset)) as count:
        return EncodedSet(name, encode_all(encoder, dataset, count), settings, encoder.fingerprint)


def dataset_digest(records: Dataset) -> str:
    """Return a digest of images and labels."""
    digest = hashlib.sha256(str(records.images.shape).encode())
    for column in (records.images, records.labels):
        digest.update(column.tobytes())
    return digest.hexdigest()
