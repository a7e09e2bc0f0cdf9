"""What training and evaluation hold in memory of a key store."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from fedmunkey.client.key_store import HeldRecords, KeyStore, Tokens
from fedmunkey.client.learning.bank import (
    Bank,
    read_bank,
    read_held_out,
    read_permanent_bank,
    read_permanent_held_out,
    retrieve,
)
from fedmunkey.client.records.dataset import Consent, Split
from fedmunkey.common.errors import BankChanged
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.model.neighbours import NONE, NeighbourLists
from fedmunkey.common.settings.settings import ImagePath
from tests.client.conftest import Fill, Make, Order, Reopen


@pytest.fixture
def model() -> Munkey:
    torch.manual_seed(0)
    return Munkey(ModelShape(ImagePath.PATCHES, (1, 8, 8), 2, 4, 16, 1, 2, 8))


def trained_tokens(count: int) -> Tokens:
    return Tokens(torch.randn(count, 8), torch.randn(count, 8), torch.rand(count, 8), torch.arange(count))


def test_bank_is_what_the_store_holds(store: KeyStore, fill: Fill) -> None:
    records = fill(store, range(5))
    fill(store, [9], split=Split.TEST)
    tokens = trained_tokens(5)
    store.records.write_tokens(0, store.records.read_entries(Split.TRAIN)[0], tokens)

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
    store.orders.apply(order(1, 2))

    after = read_bank(store, 3)

    assert (before.generation, after.generation) == (0, 1)
    assert after.entries.tolist() == [1, 2, 4, 5, 6]
    assert after.lists.lengths.tolist() == [4] * 5
    assert set(after.lists.indices.flatten().tolist()) == {NONE, 0, 1, 2, 3, 4}


def test_bank_is_read_again_if_entries_go_meanwhile(store: KeyStore, fill: Fill, order: Order, reopen: Reopen) -> None:
    fill(store, range(6))
    other = reopen(store)

    def delete(*_: object) -> None:
        other.orders.apply(order(1, 0))

    bank = read_bank(store, 3, progress=delete)

    assert bank.entries.tolist() == [2, 3, 4, 5, 6]
    assert bank.generation == store.generation == 1


def test_chosen_entries_of_a_bank_come_with_all_that_belongs_to_them(store: KeyStore, fill: Fill) -> None:
    records = fill(store, range(5))
    fill(store, [5], consent=Consent.PERMANENT)
    store.records.write_tokens(0, store.records.read_entries(Split.TRAIN)[0], trained_tokens(6))
    bank, lists = read_bank(store, 3), NeighbourLists.empty(3, 2)

    some = bank.select(np.array([4, 0, 5]), lists)

    assert some.generation == bank.generation
    assert some.entries.tolist() == [5, 1, 6]
    assert some.labels[:2].tolist() == records.labels[[4, 0]].tolist()
    assert torch.equal(some.inputs[:2], torch.from_numpy(records.images[[4, 0]]))
    assert torch.equal(some.tokens.second_moments, bank.tokens.second_moments[[4, 0, 5]])
    assert some.tokens.steps.tolist() == [4, 0, 5]
    assert some.lists is lists
    assert some.permanent.tolist() == [False, False, True]


def test_bank_without_any_entry_retrieves_nothing(store: KeyStore, fill: Fill, model: Munkey) -> None:
    empty = read_bank(store, 3)
    fill(store, range(5))

    for nothing in (empty, read_bank(store, 3).none()):
        assert len(nothing) == len(nothing.entries) == len(nothing.inputs) == len(nothing.tokens.steps) == 0
        found = retrieve(model, nothing, NeighbourLists.empty(2, 12), 3)
        assert not found.present.any()
        assert found.exemplars.shape == (2, 3, 8)


def test_held_out_records_have_their_neighbours_in_the_bank(store: KeyStore, fill: Fill) -> None:
    fill(store, range(5))
    records = fill(store, [10, 11], split=Split.TEST)
    bank = read_bank(store, 3)

    held_out = read_held_out(store, Split.TEST, bank, 3)

    splits = [store.records.read_entries(split)[0] for split in (Split.TEST, Split.TRAIN)]
    queries, keys = map(store.records.read_keys, splits)
    assert torch.equal(held_out.inputs, torch.from_numpy(records.images))
    assert held_out.labels.tolist() == records.labels.tolist()
    assert torch.equal(held_out.lists.indices[:, :5], (queries @ keys.T).argsort(1, descending=True))
    assert len(read_held_out(store, Split.VAL, bank, 3).labels) == 0


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


# The permanent part.


def mixed(store: KeyStore, fill: Fill, *, revocable: bool = True) -> None:
    """Enrol permanent records of numbers 0 to 9, and revocable ones before, between and after them if asked."""
    for numbers in (range(4), range(4, 10)):
        if revocable:
            fill(store, range(100 + numbers[0], 103 + numbers[0]))
        fill(store, numbers, consent=Consent.PERMANENT)
    fill(store, [20, 21], split=Split.VAL, consent=Consent.PERMANENT)
    if revocable:
        fill(store, range(200, 205))
        fill(store, [30, 31], split=Split.VAL)


@pytest.mark.parametrize(("read", "method", "left"), [(read_bank, "tokens", 20), (read_permanent_bank, "inputs", 9)])
def test_bank_is_read_again_if_entries_go_at_the_last_moment(
    store: KeyStore, fill: Fill, order: Order, reopen: Reopen, read: Callable[..., Bank], method: str, left: int
) -> None:
    mixed(store, fill)
    other, usual = reopen(store), getattr(HeldRecords, f"read_{method}")

    def delete_and_read(self: HeldRecords, entries: object) -> object:
        patched.undo()
        found = usual(self, entries)
        other.orders.apply(order(1, 2))
        return found

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(HeldRecords, f"read_{method}", delete_and_read)
        bank = read(store, 3)

    assert len(bank) == len(bank.tokens.offsets) == len(bank.lists.indices) == left
    assert bank.generation == store.generation == 1


@pytest.mark.parametrize("permanent", [False, True])
def test_held_out_records_need_their_bank(store: KeyStore, fill: Fill, order: Order, permanent: bool) -> None:
    mixed(store, fill)
    bank = read_permanent_bank(store, 3) if permanent else read_bank(store, 3)
    store.orders.apply(order(1, 2))

    with pytest.raises(BankChanged):
        (read_permanent_held_out if permanent else read_held_out)(store, Split.VAL, bank, 3)


def test_permanent_bank_is_that_of_a_store_without_the_other_records(make_store: Make, fill: Fill) -> None:
    everything, permanent_only = make_store(), make_store()
    mixed(everything, fill)
    mixed(permanent_only, fill, revocable=False)

    bank, expected = (read_permanent_bank(store, 3) for store in (everything, permanent_only))

    assert len(bank) == 10
    assert bank.permanent.all()
    assert everything.records.read_permanent(bank.entries).all()
    assert bank.labels.tolist() == expected.labels.tolist()
    assert torch.equal(bank.inputs, expected.inputs)
    assert torch.equal(bank.lists.indices, expected.lists.indices)
    assert torch.equal(bank.lists.similarities, expected.lists.similarities)
    pairs = ((everything, bank), (permanent_only, expected))
    held_out, alike = (read_permanent_held_out(store, Split.VAL, its_bank, 3) for store, its_bank in pairs)
    assert held_out.labels.tolist() == alike.labels.tolist() == [20 % 4, 21 % 4]
    assert torch.equal(held_out.inputs, alike.inputs)
    assert torch.equal(held_out.lists.indices, alike.lists.indices)
    assert torch.equal(held_out.lists.similarities, alike.lists.similarities)
    # The neighbours are the nearest of the permanent ones, but for the entry itself.
    similarities = everything.records.read_keys(bank.entries) @ everything.records.read_keys(bank.entries).T
    assert torch.equal(bank.lists.indices, similarities.fill_diagonal_(-2).topk(3).indices)


def test_permanent_bank_does_not_read_tokens_that_have_been_trained(store: KeyStore, fill: Fill) -> None:
    mixed(store, fill)
    entries, _ = store.records.read_entries(Split.TRAIN)
    store.records.write_tokens(0, entries, trained_tokens(len(entries)))

    tokens = read_permanent_bank(store, 3).tokens

    assert not any(part.any() for part in (tokens.offsets, tokens.first_moments, tokens.second_moments, tokens.steps))


@pytest.mark.parametrize("records", [0, 5])
def test_store_without_permanent_records_has_an_empty_permanent_bank(store: KeyStore, fill: Fill, records: int) -> None:
    fill(store, range(records))
    fill(store, [10], split=Split.VAL)

    bank = read_permanent_bank(store, 3)

    assert len(bank) == 0
    assert len(read_permanent_held_out(store, Split.VAL, bank, 3).labels) == 0
