"""What training and evaluation hold in memory of a key store."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from client.bank import Bank, read_bank, read_held_out, retrieve
from client.dataset import Dataset, Split
from client.key_store import KeyStore, Tokens
from common.deletion import DeletionOrder
from common.errors import BankChanged
from common.guarantees import Guarantee
from common.model import ModelShape, Munkey
from common.neighbours import NONE, NeighbourLists
from common.settings import ImagePath

Fill = Callable[..., Dataset]
Order = Callable[..., DeletionOrder]
Reopen = Callable[[KeyStore], KeyStore]


@pytest.fixture
def model() -> Munkey:
    torch.manual_seed(0)
    return Munkey(ModelShape(ImagePath.PATCHES, (1, 8, 8), 2, 4, 16, 1, 2, 8))


def test_bank_is_what_the_store_holds(store: KeyStore, fill: Fill) -> None:
    records = fill(store, range(5))
    fill(store, [9], split=Split.TEST)
    tokens = Tokens(torch.randn(5, 8), torch.randn(5, 8), torch.rand(5, 8), torch.arange(5))
    store.write_tokens(0, store.read_entries(Split.TRAIN)[0], tokens)

    bank = read_bank(store, 3)

    assert len(bank) == 5
    assert bank.entries.tolist() == [1, 2, 3, 4, 5]
    assert bank.labels.tolist() == records.labels.tolist()
    assert torch.equal(bank.inputs, torch.from_numpy(records.images))
    assert torch.equal(bank.tokens.offsets, tokens.offsets)
    assert bank.lists.lengths.tolist() == [4] * 5
    assert not (bank.lists.indices == torch.arange(5)[:, None]).any()


def test_bank_without_an_entry_has_lists_without_it(store: KeyStore, fill: Fill, order: Order) -> None:
    fill(store, range(6))
    before = read_bank(store, 3)
    store.apply(order(1, 2), Guarantee.EMPIRICAL)

    after = read_bank(store, 3)

    assert (before.generation, after.generation) == (0, 1)
    assert after.entries.tolist() == [1, 2, 4, 5, 6]
    assert after.lists.lengths.tolist() == [4] * 5
    assert set(after.lists.indices.flatten().tolist()) == {NONE, 0, 1, 2, 3, 4}


def test_bank_is_read_again_if_entries_go_meanwhile(store: KeyStore, fill: Fill, order: Order, reopen: Reopen) -> None:
    fill(store, range(6))
    other = reopen(store)

    def delete(*_: object) -> None:
        other.apply(order(1, 0), Guarantee.EMPIRICAL)

    bank = read_bank(store, 3, progress=delete)

    assert bank.entries.tolist() == [2, 3, 4, 5, 6]
    assert bank.generation == store.generation == 1


def test_bank_is_read_again_if_entries_go_at_the_last_moment(
    store: KeyStore, fill: Fill, order: Order, reopen: Reopen, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, range(6))
    other = reopen(store)
    read_tokens = KeyStore.read_tokens

    def delete_and_read(self: KeyStore, entries: object) -> Tokens:
        patched.undo()
        found = read_tokens(self, entries)  # type: ignore[arg-type]
        other.apply(order(1, 0), Guarantee.EMPIRICAL)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(KeyStore, "read_tokens", delete_and_read)
        bank = read_bank(store, 3)

    assert bank.entries.tolist() == [2, 3, 4, 5, 6]
    assert len(bank.tokens.offsets) == len(bank.lists.indices) == 5


def test_held_out_records_have_their_neighbours_in_the_bank(store: KeyStore, fill: Fill) -> None:
    fill(store, range(5))
    records = fill(store, [10, 11], split=Split.TEST)
    bank = read_bank(store, 3)

    held_out = read_held_out(store, Split.TEST, bank, 3)

    queries, keys = (store.read_keys(store.read_entries(split)[0]) for split in (Split.TEST, Split.TRAIN))
    assert torch.equal(held_out.inputs, torch.from_numpy(records.images))
    assert held_out.labels.tolist() == records.labels.tolist()
    assert torch.equal(held_out.lists.indices[:, :5], (queries @ keys.T).argsort(1, descending=True))
    assert len(read_held_out(store, Split.VAL, bank, 3).labels) == 0


def test_held_out_records_of_another_bank_are_refused(store: KeyStore, fill: Fill, order: Order) -> None:
    fill(store, range(5))
    fill(store, [10], split=Split.TEST)
    bank = read_bank(store, 3)
    store.apply(order(1, 0), Guarantee.EMPIRICAL)

    with pytest.raises(BankChanged):
        read_held_out(store, Split.TEST, bank, 3)


def test_retrieval_reads_the_first_k_tokens(store: KeyStore, fill: Fill, model: Munkey) -> None:
    fill(store, range(5))
    bank = read_bank(store, 3)
    bank.tokens.offsets[:] = torch.randn(5, 8)

    found = retrieve(model, bank, bank.lists, 3)

    nearest = bank.lists.indices[:, :3]
    assert torch.equal(found.exemplars, model.label_embedding[bank.labels[nearest]] + bank.tokens.offsets[nearest])
    assert torch.equal(found.similarities, bank.lists.similarities[:, :3])
    assert found.present.all()


def test_places_that_no_neighbour_fills_are_absent(store: KeyStore, fill: Fill, model: Munkey) -> None:
    fill(store, range(2))
    bank = read_bank(store, 3)

    found = retrieve(model, bank, bank.lists, 3)

    assert found.present.tolist() == [[True, False, False]] * 2
    assert found.exemplars.shape == (2, 3, 8)


def test_empty_bank_retrieves_nothing(store: KeyStore, model: Munkey) -> None:
    bank: Bank = read_bank(store, 3)

    found = retrieve(model, bank, NeighbourLists.empty(2, 12), 3)

    assert len(bank) == 0
    assert not found.present.any()
    assert found.exemplars.shape == (2, 3, 8)
