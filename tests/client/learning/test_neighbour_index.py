"""Neighbour lists in a key store stay true, whatever arrives and goes, and are not searched without need."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.key_store.on_disk.contents import SLACK
from fedmunkey.client.learning import neighbour_index
from fedmunkey.client.learning.bank import read_bank
from fedmunkey.client.learning.neighbour_index import list_arrivals, read_lists
from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import DeletionOrder, DeletionRequest, Records
from fedmunkey.common.errors import BankChanged
from fedmunkey.common.model.encoders import Encoding
from fedmunkey.common.model.neighbours import NONE, NeighbourLists, nearest
from tests.client.conftest import DESCRIPTION, SITE

SECRET = FederationSecret(b"a secret that sites share")
K = 2
LENGTH = 4

# Small whole numbers make every dot product exact, so that a list does not depend on how it was computed.
keys_of_arrivals = st.lists(st.tuples(*[st.integers(-2, 2)] * 3), min_size=1, max_size=10)
arrivals = st.tuples(st.just("arrive"), keys_of_arrivals, st.sampled_from([Split.TRAIN, Split.TRAIN, Split.TEST]))
departures = st.tuples(st.just("leave"), st.sets(st.integers(0, 30), min_size=1, max_size=5), st.none())
interruptions = st.tuples(st.just("interrupt"), st.integers(0, 4), st.none())
readings = st.tuples(st.just("read"), st.none(), st.none())


class Site:
    """A key store whose keys the test chooses, and what is in it."""

    def __init__(self, folder: str, length: int = LENGTH) -> None:
        description = replace(DESCRIPTION, key_size=3, input_shape=(1, 1, 1), exemplar_size=2, list_length=length)
        self.store = KeyStore.create(Path(folder) / "keystore.sqlite", description)
        self.keys: dict[int, list[float]] = {}
        self.splits: dict[int, Split] = {}
        self._numbers = count(1)

    def arrive(self, keys: Sequence[tuple[int, ...]], split: Split = Split.TRAIN) -> None:
        first = len(self.keys) + 1
        numbers = [next(self._numbers) for _ in keys]
        assert numbers[0] == first
        names = np.array([f"record-{n}" for n in numbers])
        self.store.records.enrol(
            Dataset(
                # An image like that of a deleted record would be refused.
                np.array(numbers, dtype=np.uint8).reshape(-1, 1, 1, 1),
                np.zeros(len(keys), dtype=np.int64),
                names,
                names,
                np.full(len(keys), split.value),
                np.full(len(keys), Consent.REVOCABLE.value),
                ("a",),
            ),
            Encoding(torch.tensor(keys, dtype=torch.float32), torch.zeros(len(keys), 1, 1)),
            SECRET,
        )
        self.keys |= {number: [float(x) for x in key] for number, key in zip(numbers, keys, strict=True)}
        self.splits |= dict.fromkeys(numbers, split)

    def leave(self, numbers: set[int]) -> None:
        numbers = numbers & self.splits.keys()
        if not numbers:
            return
        references = frozenset(SECRET.reference(f"record-{n}") for n in numbers)
        number = self.store.orders.last + 1
        request = DeletionRequest(f"request-{number}", SITE, Records(references, SITE))
        self.store.orders.apply(DeletionOrder(number, SITE, request))
        for gone in numbers:
            del self.splits[gone]

    def ranking(self, entry: int) -> list[int]:
        """Rank the bank by brute force: falling similarity, the earlier first among equals, without the entry."""
        bank = [other for other, split in sorted(self.splits.items()) if split is Split.TRAIN and other != entry]
        return sorted(bank, key=lambda other: (-np.dot(self.keys[entry], self.keys[other]), other))

    def check(self) -> None:
        bank, _ = self.store.records.read_entries(Split.TRAIN)
        for split in (Split.TRAIN, Split.TEST):
            entries, _ = self.store.records.read_entries(split)
            lists = read_lists(self.store, entries, bank, K)
            for row, entry in enumerate(entries.tolist()):
                found = [int(bank[place]) for place in lists.indices[row].tolist() if place != NONE]
                expected = self.ranking(entry)
                assert len(found) >= min(K, len(expected))
                assert found == expected[: len(found)]
                similarities = [np.dot(self.keys[entry], self.keys[other]) for other in found]
                assert lists.similarities[row, : len(found)].tolist() == similarities


class StoppedError(Exception): ...


def interrupt_after(writes: int) -> Callable[[str, int, int], None]:
    """Return a progress callback that ends the work after some blocks have been written."""
    left = count(writes, -1)

    def progress(_what: str, _done: int, _total: int) -> None:
        if not next(left):
            raise StoppedError

    return progress


@settings(max_examples=60)
@given(steps=st.lists(st.one_of(arrivals, departures, interruptions, readings), max_size=14))
def test_lists_are_true_after_any_sequence_of_arrivals_and_deletions(steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbour_index, "_BLOCK", 2)
        site = Site(folder)
        for what, value, split in steps:
            if what == "arrive":
                site.arrive(value, split)
            elif what == "leave":
                site.leave(value)
            elif what == "interrupt":
                try:
                    list_arrivals(site.store, interrupt_after(value))
                except StoppedError:
                    continue
            else:
                list_arrivals(site.store)
                site.check()
        list_arrivals(site.store)
        assert len(site.store.records.read_unlisted()) == 0
        site.check()
        site.store.close()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(str(tmp_path))


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Note each search: how many queries among how many keys."""
    noted: list[tuple[int, int]] = []

    def counted(queries: torch.Tensor, keys: torch.Tensor, *rest: Any, **named: Any) -> NeighbourLists:
        noted.append((len(queries), len(keys)))
        return nearest(queries, keys, *rest, **named)

    monkeypatch.setattr(neighbour_index, "nearest", counted)
    return noted


@pytest.fixture
def listed(site: Site, searches: list[tuple[int, int]]) -> Site:
    """A site with eight entries and their lists."""
    site.arrive(various(8))
    list_arrivals(site.store)
    searches.clear()
    return site


def various(number: int) -> list[tuple[int, int, int]]:
    """Return keys that point in many directions."""
    return [(n, n * n % 17, n % 5 - 2) for n in range(1, number + 1)]


def test_nothing_is_searched_where_nothing_changed(site: Site, searches: list[tuple[int, int]]) -> None:
    site.arrive(various(8))
    site.arrive(various(2), Split.TEST)
    read_bank(site.store, K)
    assert searches == [(10, 8)]

    read_bank(site.store, K)
    site.check()

    assert len(searches) == 1


def test_deletion_needs_no_search_while_lists_are_long_enough(listed: Site, searches: list[tuple[int, int]]) -> None:
    listed.leave({3, 5})
    list_arrivals(listed.store)
    listed.check()

    assert searches == []


def test_only_lists_that_became_too_short_are_searched_again(site: Site, searches: list[tuple[int, int]]) -> None:
    # Two groups that do not know each other: each entry's list is its own group's.
    site.arrive([(1, 0, n) for n in range(1, 6)] + [(-1, 0, -n) for n in range(1, 7)])
    list_arrivals(site.store)
    searches.clear()

    site.leave({1, 2, 3})
    site.check()

    assert searches == [(2, 8)]


def test_arrivals_are_patched_into_the_lists_that_there_are(listed: Site, searches: list[tuple[int, int]]) -> None:
    listed.arrive(various(10)[8:])
    list_arrivals(listed.store)

    # The eight old lists meet the two arrivals only; the arrivals meet everything.
    assert searches == [(8, 2), (2, 10)]
    listed.check()


def test_arrival_is_not_put_below_neighbours_that_a_shortened_list_does_not_know(site: Site) -> None:
    site.arrive([(n, 1, 0) for n in range(1, 9)])
    list_arrivals(site.store)
    site.leave({7, 8})
    # Every list has two places free, and each of the others is nearer than this.
    site.arrive([(-9, 0, 0)])
    list_arrivals(site.store)

    site.check()


def test_held_out_arrivals_change_no_list_of_the_bank(listed: Site, searches: list[tuple[int, int]]) -> None:
    listed.arrive(various(3), Split.TEST)
    list_arrivals(listed.store)

    assert searches == [(3, 8)]
    listed.check()


@pytest.mark.parametrize("writes", range(1, 8))
def test_interrupted_listing_goes_on_where_it_stopped(site: Site, monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    monkeypatch.setattr(neighbour_index, "_BLOCK", 2)
    site.arrive(various(6))
    list_arrivals(site.store)
    site.arrive([(7, -1, 3), (0, 5, -2), (1, 1, 1), (-4, 2, 0), (2, 2, 2), (3, 0, -3), (5, 5, 0), (0, 0, 1)])

    with pytest.raises(StoppedError):
        list_arrivals(site.store, interrupt_after(writes - 1))
    unlisted = len(site.store.records.read_unlisted())
    list_arrivals(site.store)

    # Three blocks are patched before the first arrival's own list is written.
    assert unlisted == 8 - 2 * max(writes - 3, 0)
    assert len(site.store.records.read_unlisted()) == 0
    site.check()


def test_progress_counts_lists(site: Site) -> None:
    reports: list[tuple[str, int, int]] = []
    site.arrive(various(3))
    list_arrivals(site.store)
    site.arrive(various(5)[3:])

    list_arrivals(site.store, lambda *report: reports.append(report))

    assert reports == [("patching neighbour lists", 3, 3), ("searching neighbours", 2, 2)]


def test_deletion_in_between_stops_the_listing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbour_index, "_BLOCK", 2)
    site.arrive(various(6))

    with pytest.raises(BankChanged):
        list_arrivals(site.store, lambda *_: site.leave({6}))

    list_arrivals(site.store)
    site.check()


def test_arrival_while_the_bank_is_read_is_put_into_all_lists(site: Site) -> None:
    site.arrive(various(6))
    late = [various(12)[6:]]

    bank = read_bank(site.store, K, lambda *_: site.arrive(late.pop()) if late else None)

    assert len(bank) == 12
    site.check()


def test_empty_store_has_no_lists(site: Site) -> None:
    list_arrivals(site.store)
    site.arrive(various(2), Split.TEST)
    list_arrivals(site.store)

    lists = read_lists(site.store, np.array([1, 2]), np.empty(0, dtype=np.int64), K)

    assert lists.lengths.tolist() == [0, 0]


def test_slack_is_the_number_of_deletions_that_need_no_search(tmp_path: Path, searches: list[tuple[int, int]]) -> None:
    site = Site(str(tmp_path), length=K + SLACK)
    site.arrive(various(40))
    read_bank(site.store, K)
    searches.clear()

    for gone in range(1, SLACK + 1):
        site.leave({gone * 4})
        read_bank(site.store, K)

    assert searches == []
    site.check()
