"""Keeping the neighbour lists in a key store true: built once, patched when entries arrive, searched again when short.

Keys are read here and nowhere else. A deletion needs no search: it takes the deleted entries out of all lists, and
lists are some entries longer than K.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.errors import BankChanged
from fedmunkey.common.model.neighbours import NONE, NeighbourLists, nearest, patch_arrivals

Progress = Callable[[str, int, int], None]

_BLOCK = 8192


def list_arrivals(store: KeyStore, progress: Progress | None = None) -> None:
    """Give a neighbour list to every record without one, and put new entries into the lists that there are.

    `progress` is called with what is being done, and how many lists of how many are. Raises `BankChanged` if entries
    were deleted meanwhile; what was written before is true, and another call finishes the rest.
    """
    generation = store.generation
    unlisted = store.records.read_unlisted()
    if not len(unlisted):
        return
    bank, _ = store.records.read_entries(Split.TRAIN)
    everyone = np.concatenate([bank, *(store.records.read_entries(split)[0] for split in (Split.VAL, Split.TEST))])
    listed = np.setdiff1d(everyone, unlisted)
    arrived = np.intersect1d(bank, unlisted)
    if len(arrived):
        count = _counter("patching neighbour lists", len(listed), progress)
        for part in _blocks(listed):
            _patch(store, generation, part, arrived, bank)
            count(len(part))
    _search(store, generation, unlisted, bank, progress)


def read_lists(store: KeyStore, entries: NDArray[np.int64], bank: NDArray[np.int64], neighbours: int) -> NeighbourLists:
    """Return the lists of some entries as positions in the bank, searching again where deletions left fewer than K.

    Both are ascending entry numbers. Lists that are searched again are written to the store. Raises `BankChanged` if
    entries were deleted meanwhile, or records of the bank arrived that `list_arrivals` has not seen.
    """
    generation = store.generation
    lists = store.records.read_neighbours(entries, bank)
    possible = len(bank) - np.isin(entries, bank)
    short = entries[lists.lengths.numpy() < np.minimum(possible, neighbours)]
    if not len(short):
        return lists
    if np.isin(np.intersect1d(short, store.records.read_unlisted()), bank).any():
        # A list of its own would make it look as if it had been put into the others' lists too.
        raise BankChanged("records were enrolled while the bank was being read; read it again")
    _search(store, generation, short, bank, None)
    return store.records.read_neighbours(entries, bank)


def _patch(
    store: KeyStore,
    generation: int,
    listed: NDArray[np.int64],
    arrived: NDArray[np.int64],
    bank: NDArray[np.int64],
) -> None:
    """Put newly arrived entries into some of the lists that there are."""
    lists = store.records.read_neighbours(listed, bank)
    found = nearest(store.records.read_keys(listed), store.records.read_keys(arrived), store.description.list_length)
    places = torch.from_numpy(np.searchsorted(bank, arrived))
    positions = torch.where(found.indices == NONE, NONE, places[found.indices.clamp_min(0)])
    # An interrupted call may have put some of the arrivals into this list already.
    repeated = (positions[:, :, None] == lists.indices[:, None, :]).any(2)
    arrivals = NeighbourLists(
        torch.where(repeated, NONE, positions), torch.where(repeated, -torch.inf, found.similarities)
    )
    before = np.setdiff1d(bank, arrived)
    held = torch.isin(lists.indices, torch.from_numpy(np.searchsorted(bank, before))).sum(1)
    possible = torch.from_numpy(len(before) - np.isin(listed, before).astype(np.int64))
    known = torch.where(held >= possible, 0, len(bank) + lists.indices.shape[1])
    patched = patch_arrivals(lists, arrivals, known)
    rows = (patched.indices != lists.indices).any(1).nonzero().squeeze(1)
    changed = NeighbourLists(patched.indices[rows], patched.similarities[rows])
    store.records.write_neighbours(generation, listed[rows.numpy()], changed, bank)


def _search(
    store: KeyStore,
    generation: int,
    entries: NDArray[np.int64],
    bank: NDArray[np.int64],
    progress: Progress | None,
) -> None:
    """Search the whole bank for some entries, block by block."""
    keys = store.records.read_keys(bank)
    count = _counter("searching neighbours", len(entries), progress)
    for part in _blocks(entries):
        own = torch.from_numpy(np.where(np.isin(part, bank), np.searchsorted(bank, part), NONE))
        found = nearest(store.records.read_keys(part), keys, store.description.list_length, own=own)
        store.records.write_neighbours(generation, part, found, bank)
        count(len(part))


def _blocks(entries: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [entries[start : start + _BLOCK] for start in range(0, len(entries), _BLOCK)]


def _counter(what: str, total: int, progress: Progress | None) -> Callable[[int], None]:
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(what, done, total)

    return count
