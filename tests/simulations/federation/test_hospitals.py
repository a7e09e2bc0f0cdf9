"""What a simulated hospital is given, and what its key store then holds."""

from __future__ import annotations

import dataclasses
import math
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from fedmunkey.client.learning.bank import Bank, HeldOut, read_bank, read_held_out
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.errors import KeyStoreError
from fedmunkey.common.model.encoders import Encoder
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.model_choice import choose_shape
from fedmunkey.common.model.neighbours import NeighbourLists
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.settings.settings import ImagePath, Settings
from fedmunkey.simulations.federation.consent import donate
from fedmunkey.simulations.federation.hospitals import (
    Encoded,
    Hospital,
    bank_of,
    encode_all,
    give,
    held_out_of,
    noise_key,
    open_hospital,
)
from fedmunkey.simulations.federation.partition import partition


def same_lists(left: NeighbourLists, right: NeighbourLists) -> bool:
    # Blocks of other sizes round similarities differently, and equally near neighbours may then swap places.
    return torch.allclose(left.similarities, right.similarities, atol=1e-5)


def test_records_are_encoded_in_their_order_and_counted(everything: Encoded, encoder: Encoder) -> None:
    counted: list[int] = []

    again = encode_all(encoder, everything.records, counted.append)

    alone = encoder.encode(torch.from_numpy(everything.records.images[70:71]))
    assert torch.allclose(again.encoding.keys[70:71], alone.keys, atol=1e-6)
    assert sum(counted) == len(again.encoding.keys) == len(again.encoding.features) == len(everything.records)


def test_part_keeps_each_record_with_its_key(everything: Encoded) -> None:
    part = everything.split(Split.TEST)

    rows = np.flatnonzero(everything.records.splits == "test")
    assert part.records.record_ids.tolist() == everything.records.record_ids[rows].tolist()
    assert torch.equal(part.encoding.keys, everything.encoding.keys[torch.from_numpy(rows)])


def test_image_path_decides_what_is_read(everything: Encoded, settings: Settings) -> None:
    patches = everything.inputs(choose_shape(settings.replace(image_path="patches")))
    frozen = everything.inputs(choose_shape(settings.replace(image_path="frozen")))

    assert torch.equal(patches, torch.from_numpy(everything.records.images))
    assert torch.equal(frozen, everything.encoding.features)


def test_hospitals_have_folders_and_keys_of_their_own_and_share_all_training_records(
    hospitals: list[Hospital], everything: Encoded, settings: Settings, encoder: Encoder
) -> None:
    names = ["hospital-1", "hospital-2", "hospital-3"]
    assert [hospital.name for hospital in hospitals] == names
    assert [hospital.folder.path for hospital in hospitals] == [Path(settings.sites_dir) / name for name in names]
    assert not Path(settings.sites_dir).exists()
    given = [name for hospital in hospitals for name in hospital.given.split(Split.TRAIN).records.record_ids]
    assert sorted(given) == sorted(everything.split(Split.TRAIN).records.record_ids)
    for hospital in hospitals:
        keys = encoder.encode(torch.from_numpy(hospital.given.records.images)).keys
        assert torch.allclose(hospital.given.encoding.keys, keys, atol=1e-6)


def test_key_store_holds_what_the_hospital_was_given(open_hospitals: list[Hospital], secret: FederationSecret) -> None:
    for hospital in open_hospitals:
        with hospital.folder.open() as store:
            for split in Split:
                given = hospital.given.split(split)
                entries, labels = store.records.read_entries(split)
                assert labels.tolist() == given.records.labels.tolist()
                assert torch.equal(store.records.read_keys(entries), given.encoding.keys)
            assert len(store.records.read_unlisted()) == 0
            assert store.records.agrees_with(secret)
        assert stat.S_IMODE(hospital.folder.path.stat().st_mode) == 0o700
        assert stat.S_IMODE(hospital.folder.secret.stat().st_mode) == 0o600


def test_key_store_gets_the_consents_and_a_noise_key_that_can_be_drawn_again(
    everything: Encoded, settings: Settings, encoder: Encoder, shape: ModelShape, secret: FederationSecret
) -> None:
    donated = dataclasses.replace(everything, records=donate(everything.records, 0.5, seed=0))
    hospitals = give(donated, partition(donated.records, 2, alpha=math.inf, seed=0), Path(settings.sites_dir))
    for hospital in hospitals:
        open_hospital(hospital, settings, encoder, shape, secret)

    for hospital in hospitals:
        given = hospital.given.split(Split.TRAIN)
        assert set(given.records.consents) == {"permanent", "revocable"}
        with hospital.folder.open() as store:
            bank = read_bank(store, Recipe.of(settings).neighbours)
            assert store.draw_noise_key() == noise_key(settings, hospital.name)
        assert bank.permanent.tolist() == (given.records.consents == "permanent").tolist()
        assert torch.equal(bank.permanent, bank_of(given, settings, shape).permanent)


def test_noise_key_is_another_for_each_seed_and_site(settings: Settings) -> None:
    keys = [noise_key(settings.replace(seed=seed), f"hospital-{number}") for seed in (0, 1) for number in (1, 2)]

    assert {len(key) for key in keys} == {32}
    assert len(set(keys)) == 4


def test_a_hospital_is_opened_once_and_counts_its_records(
    hospitals: list[Hospital], settings: Settings, encoder: Encoder, shape: ModelShape, secret: FederationSecret
) -> None:
    counted: list[int] = []

    open_hospital(hospitals[0], settings, encoder, shape, secret, counted.append)

    assert counted == [len(hospitals[0].given.records)]
    with pytest.raises(KeyStoreError, match="is there already"):
        open_hospital(hospitals[0], settings, encoder, shape, secret)


@pytest.mark.parametrize("path", [ImagePath.PATCHES, ImagePath.FROZEN])
def test_bank_without_a_key_store_equals_the_key_stores(
    hospitals: list[Hospital], settings: Settings, encoder: Encoder, secret: FederationSecret, path: ImagePath
) -> None:
    hospital, settings = hospitals[0], settings.replace(image_path=path.value)
    shape = choose_shape(settings)
    open_hospital(hospital, settings, encoder, shape, secret)
    train, test = hospital.given.split(Split.TRAIN), hospital.given.split(Split.TEST)

    bank, held_out = bank_of(train, settings, shape), held_out_of(test, train, settings, shape)

    with hospital.folder.open() as store:
        real: Bank = read_bank(store, Recipe.of(settings).neighbours)
        real_held_out: HeldOut = read_held_out(store, Split.TEST, real, Recipe.of(settings).neighbours)
    assert torch.equal(bank.tokens.offsets, real.tokens.offsets)
    for ours, theirs in ((bank, real), (held_out, real_held_out)):
        assert torch.equal(ours.labels, theirs.labels)
        assert torch.equal(ours.inputs, theirs.inputs)
        assert same_lists(ours.lists, theirs.lists)
    # No entry is its own neighbour.
    assert not (bank.lists.indices == torch.arange(len(bank))[:, None]).any()
