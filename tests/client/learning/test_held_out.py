"""Held-out records that simulated sites share: each evaluates on its share, and on nobody whom it has forgotten."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.learning.bank import read_bank
from fedmunkey.client.learning.contribution import read_numbered
from fedmunkey.client.learning.held_out import OwnHeldOut, SharedHeldOut, held_out_of
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.closed_form.feature_map import FeatureMap
from fedmunkey.common.deletions.words import DeletionOrder, DeletionRequest, Subject, WholeSite
from fedmunkey.common.errors import KeyStoreError
from fedmunkey.common.settings.settings import ImagePath
from tests.client.conftest import FEATURES, Fill, Make

READ = FeatureMap(FEATURES, 10)
FROZEN: dict[str, Any] = {"image_path": ImagePath.FROZEN, "input_shape": FEATURES}
HELD = 12


@pytest.fixture
def own(make_store: Make, fill: Fill) -> KeyStore:
    """A site that holds the test records itself."""
    store = make_store(**FROZEN)
    fill(store, range(100, 100 + HELD), split=Split.TEST)
    fill(store, range(20))
    return store


@pytest.fixture
def site(make_store: Make, fill: Fill) -> KeyStore:
    """A site that holds the same training records, and no others."""
    store = make_store(**FROZEN)
    fill(store, range(20))
    return store


@pytest.fixture
def shared(own: KeyStore, tmp_path: Path) -> Path:
    """The same test records in a folder; each is of a subject whose reference is its number."""
    entries, labels = own.records.read_entries(Split.TEST)
    keys, inputs = own.records.read_keys(entries).numpy(), own.records.read_inputs(entries).numpy()
    subjects = [reference(row) for row in range(HELD)]
    SharedHeldOut.write(tmp_path / "shared", np.full(HELD, "test"), labels.numpy(), subjects, keys, inputs)
    return tmp_path / "shared"


def reference(row: int) -> bytes:
    return bytes([row]) * 32


def labels_of(held_out: SharedHeldOut, store: KeyStore) -> list[tuple[bytes, int]]:
    found = held_out.numbered(store, Split.TEST, READ)
    return [(numbers.tobytes(), int(label)) for numbers, label in zip(found.numbers, found.labels, strict=True)]


@pytest.mark.parametrize("parts", [1, 2])
def test_shared_records_read_as_a_sites_own(own: KeyStore, site: KeyStore, shared: Path, parts: int) -> None:
    mine = OwnHeldOut().numbered(own, Split.TEST, READ)
    (whole,) = read_numbered(own, READ, Split.TEST)
    found = [SharedHeldOut(shared, part, parts).numbered(site, Split.TEST, READ) for part in range(parts)]

    assert np.array_equal(mine.numbers, whole.numbers)
    for part, held_out in enumerate(found):
        assert np.array_equal(held_out.numbers, mine.numbers[part::parts])
        assert np.array_equal(held_out.labels, mine.labels[part::parts])


def test_neighbours_are_those_that_a_key_store_lists(own: KeyStore, site: KeyStore, shared: Path) -> None:
    listed = OwnHeldOut().with_neighbours(own, Split.TEST, read_bank(own, 3), 3)
    looked_up = SharedHeldOut(shared, 0, 1).with_neighbours(site, Split.TEST, read_bank(site, 3), 3)

    assert looked_up.lists.indices[:, :3].tolist() == listed.lists.indices[:, :3].tolist()
    assert looked_up.inputs.tolist() == listed.inputs.tolist()


def test_every_site_comes_to_all_records_in_turn(site: KeyStore, shared: Path) -> None:
    everything = labels_of(SharedHeldOut(shared, 0, 1), site)

    for part in range(3):
        turns = [labels_of(SharedHeldOut(shared, part, 3, number), site) for number in range(3)]
        assert sorted(chain.from_iterable(turns)) == sorted(everything)
    same_round = [labels_of(SharedHeldOut(shared, part, 3, 1), site) for part in range(3)]
    assert sorted(chain.from_iterable(same_round)) == sorted(everything)


def test_a_forgotten_subject_counts_no_more_and_a_forgotten_site_has_nothing(site: KeyStore, shared: Path) -> None:
    before = labels_of(SharedHeldOut(shared, 0, 1), site)
    name = site.description.site
    site.orders.apply(DeletionOrder(1, name, DeletionRequest("subject", name, Subject(reference(3)))))
    after = labels_of(SharedHeldOut(shared, 0, 1), site)
    site.orders.apply(DeletionOrder(2, name, DeletionRequest("site", name, WholeSite(name))))

    assert after == before[:3] + before[4:]
    assert labels_of(SharedHeldOut(shared, 0, 1), site) == []


def test_a_site_shares_only_where_its_folder_says_so(shared: Path, tmp_path: Path) -> None:
    assert isinstance(held_out_of(tmp_path, 1), OwnHeldOut)

    SharedHeldOut(shared, 2, 5).link(tmp_path)

    assert held_out_of(tmp_path, 7) == SharedHeldOut(shared, 2, 5, 7)
    SharedHeldOut(tmp_path / "elsewhere", 2, 5).link(tmp_path)
    with pytest.raises(KeyStoreError, match=r"elsewhere that .* names are not there"):
        held_out_of(tmp_path, 7)
