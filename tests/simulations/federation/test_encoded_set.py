"""A data set by name: settings that follow from it, what is refused, and how a report describes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedmunkey.client.records.dataset import Dataset
from fedmunkey.common.errors import InvalidDataset, InvalidSetting
from fedmunkey.common.model.model_choice import choose_encoder
from fedmunkey.common.settings.settings_text import ConfigValue
from fedmunkey.simulations.federation import encoded_set
from fedmunkey.simulations.federation.encoded_set import FROM_DATA, EncodedSet, load_encoded
from fedmunkey.simulations.programs.progress import Progress


def load(data: Path, **overrides: ConfigValue) -> EncodedSet:
    with Progress.quiet() as progress:
        return load_encoded(str(data), {n.replace("_", "-"): v for n, v in overrides.items()}, None, progress)


def relabelled(encoded: EncodedSet, row: int) -> EncodedSet:
    labels = encoded.images.records.labels.copy()
    labels[row] = (labels[row] + 1) % 10
    return with_records(encoded, labels=labels)


def with_records(encoded: EncodedSet, **columns: Any) -> EncodedSet:
    return replace(encoded, images=replace(encoded.images, records=replace(encoded.images.records, **columns)))


def test_settings_follow_from_the_data(few_npz: Path, few_digits: Dataset) -> None:
    encoded = load(few_npz, seed=5, num_rounds=2)

    assert encoded.settings.image_shape == few_digits.image_shape
    assert encoded.settings.num_classes == 10
    assert (encoded.settings.seed, encoded.settings.num_rounds) == (5, 2)
    assert encoded.name == "few"


def test_every_record_is_encoded_in_its_place(few_npz: Path) -> None:
    images = load(few_npz).images

    assert len(images.encoding.keys) == len(images.encoding.features) == len(images.records) == 86
    # The keys of the same images are the same, whatever came with them.
    again = load(few_npz, seed=1).images
    assert torch.equal(images.encoding.keys, again.encoding.keys)
    assert len(torch.unique(images.encoding.keys, dim=0)) == len(images.records)


def test_delta_is_one_in_ten_times_the_training_records_unless_it_is_given(few_npz: Path) -> None:
    assert load(few_npz).settings.delta == pytest.approx(1 / 600)
    assert load(few_npz, delta=0.002).settings.delta == 0.002


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *((name, rf"^{name} = 3: comes from the data set; leave it out$") for name in FROM_DATA),
        ("num-round", r"num-round: did you mean num-rounds\?"),
    ],
)
def test_setting_that_cannot_be_given_is_refused_before_the_data_are_read(
    name: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoded_set, "load_dataset", None)

    with pytest.raises(InvalidSetting, match=reason):
        load(Path("nowhere.npz"), **{name: 3})


def test_unknown_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match=r"nowhere\.npz"):
        load(tmp_path / "nowhere.npz")


def test_description_counts_records_and_names_classes(few_npz: Path) -> None:
    found = load(few_npz).describe()

    assert found.pop("encoder") == choose_encoder(load(few_npz).settings).fingerprint
    digest = found.pop("digest")
    assert found == {"name": "few", "records": 86, "train": 60, "test": 20, "classes": list("0123456789")}
    assert len(bytes.fromhex(digest)) == 32


def test_digest_changes_with_a_label_and_with_an_image(few_npz: Path) -> None:
    encoded = load(few_npz)
    brighter = encoded.images.records.images.copy()
    brighter[7, 0, 3, 3] ^= 1

    changed = relabelled(encoded, 7), relabelled(encoded, 8), with_records(encoded, images=brighter)
    described = [one.describe() for one in (encoded, *changed)]

    assert len({one["digest"] for one in described}) == 4
    assert load(few_npz).describe() == described[0]
