"""A data set by name: settings that follow from it, what is refused, and how a report describes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from client.dataset import Dataset, Split
from common.errors import InvalidDataset, InvalidSetting
from common.model_choice import choose_encoder
from common.settings_text import ConfigValue
from simulations import encoded_set
from simulations.encoded_set import FROM_DATA, EncodedSet, load_encoded
from simulations.hospitals import Encoded
from simulations.progress import Progress


@pytest.fixture
def data(few_digits: Dataset, tmp_path: Path) -> Path:
    arrays: dict[str, Any] = {}
    for split in Split:
        records = few_digits.split(split)
        arrays |= {f"{split}_images": records.images[:, 0], f"{split}_labels": records.labels[:, None]}
    np.savez(tmp_path / "few.npz", **arrays)
    return tmp_path / "few.npz"


def load(data: Path, **overrides: ConfigValue) -> EncodedSet:
    with Progress.quiet() as progress:
        return load_encoded(str(data), {n.replace("_", "-"): v for n, v in overrides.items()}, None, progress)


def relabelled(encoded: EncodedSet, row: int) -> EncodedSet:
    records = encoded.images.records
    labels = records.labels.copy()
    labels[row] = (labels[row] + 1) % records.num_classes
    return replace(encoded, images=Encoded(replace(records, labels=labels), encoded.images.encoding))


def test_settings_follow_from_the_data(data: Path, few_digits: Dataset) -> None:
    encoded = load(data, seed=5, num_rounds=2)

    assert encoded.settings.image_shape == few_digits.image_shape
    assert encoded.settings.num_classes == 10
    assert (encoded.settings.seed, encoded.settings.num_rounds) == (5, 2)
    assert encoded.name == "few"


def test_every_record_is_encoded_in_its_place(data: Path) -> None:
    images = load(data).images

    assert len(images.encoding.keys) == len(images.encoding.features) == len(images.records) == 86
    # The keys of the same images are the same, whatever came with them.
    again = load(data, seed=1).images
    assert torch.equal(images.encoding.keys, again.encoding.keys)
    assert len(torch.unique(images.encoding.keys, dim=0)) == len(images.records)


def test_delta_is_one_in_ten_times_the_training_records_unless_it_is_given(data: Path) -> None:
    assert load(data).settings.delta == pytest.approx(1 / 600)
    assert load(data, delta=0.002).settings.delta == 0.002


@pytest.mark.parametrize("name", FROM_DATA)
def test_setting_that_follows_from_the_data_is_refused(data: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded_set, "load_dataset", None)

    with pytest.raises(InvalidSetting, match=rf"^{name} = 3: comes from the data set; leave it out$"):
        load(data, **{name: 3})


def test_unknown_setting_is_refused_before_the_data_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded_set, "load_dataset", None)

    with pytest.raises(InvalidSetting, match=r"num-round: did you mean num-rounds\?"):
        load(Path("nowhere.npz"), num_round=3)


def test_unknown_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match=r"nowhere\.npz"):
        load(tmp_path / "nowhere.npz")


def test_description_counts_records_and_names_classes(data: Path) -> None:
    found = load(data).describe()

    assert found.pop("encoder") == choose_encoder(load(data).settings).fingerprint
    digest = found.pop("digest")
    assert found == {
        "name": "few",
        "records": 86,
        "train": 60,
        "test": 20,
        "classes": [str(digit) for digit in range(10)],
    }
    assert len(bytes.fromhex(digest)) == 32


def test_digest_changes_with_a_label_and_with_an_image(data: Path) -> None:
    encoded = load(data)
    records = encoded.images.records
    brighter = records.images.copy()
    brighter[7, 0, 3, 3] ^= 1
    other_image = replace(encoded, images=Encoded(replace(records, images=brighter), encoded.images.encoding))

    described = [one.describe() for one in (encoded, relabelled(encoded, 7), relabelled(encoded, 8), other_image)]

    assert len({one["digest"] for one in described}) == 4
    assert load(data).describe() == described[0]
