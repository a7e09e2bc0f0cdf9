"""From images to a key store: encoded once, in batches, in order."""

from __future__ import annotations

import pytest
import torch

from fedmunkey.client.importing.encoding import encode, enrol
from fedmunkey.client.key_store import Enrolled, KeyStore
from fedmunkey.client.records import dataset
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.model.encoders.descriptor import DescriptorEncoder
from tests.client.conftest import Make, MakeRecords


@pytest.fixture
def encoder() -> DescriptorEncoder:
    return DescriptorEncoder(1)


@pytest.fixture
def store(make_store: Make, encoder: DescriptorEncoder) -> KeyStore:
    return make_store(encoder=encoder.fingerprint, key_size=encoder.key_size)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "BATCH", 3)


def test_batches_hold_every_record_with_its_own_encoding(make_records: MakeRecords, encoder: DescriptorEncoder) -> None:
    records = make_records(range(7))

    batches = list(encode(encoder, records))

    whole = encoder.encode(torch.from_numpy(records.images))
    assert [len(batch) for batch, _ in batches] == [3, 3, 1]
    assert list(encode(encoder, make_records([]))) == []
    assert [name for batch, _ in batches for name in batch.record_ids] == records.record_ids.tolist()
    assert torch.allclose(torch.cat([encoding.keys for _, encoding in batches]), whole.keys)
    assert torch.allclose(torch.cat([encoding.features for _, encoding in batches]), whole.features)


def test_enrolled_records_are_in_the_store(
    store: KeyStore, make_records: MakeRecords, encoder: DescriptorEncoder, secret: FederationSecret
) -> None:
    records, finished = make_records(range(7)), list[int]()

    enrolled = enrol(store, encode(encoder, records), secret, progress=finished.append)

    entries, labels = store.records.read_entries(Split.TRAIN)
    assert enrolled == Enrolled(added=7)
    assert finished == [3, 3, 1]
    assert labels.tolist() == records.labels.tolist()
    assert torch.equal(store.records.read_inputs(entries), torch.from_numpy(records.images))
    assert torch.allclose(store.records.read_keys(entries), encoder.encode(torch.from_numpy(records.images)).keys)
