"""The part of a key store that training and evaluation hold in memory: no key is in it, neighbour lists are enough."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmunkey.client.key_store import KeyStore, Tokens
from fedmunkey.client.learning.neighbour_index import Progress, list_arrivals, read_lists
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.errors import BankChanged
from fedmunkey.common.model.aggregation import Retrieved
from fedmunkey.common.model.model import Munkey
from fedmunkey.common.model.neighbours import NONE, NeighbourLists, nearest


@dataclass(frozen=True)
class Bank:
    """A site's n entries.

    Attributes
    ----------
    generation : int
        The key store's generation when this was read.
    entries : ndarray
        (n,) int64 entry numbers, ascending.
    labels, inputs
        (n,) int64, and (n, *input_shape): what the image path reads.
    tokens : Tokens
        Offsets and their optimiser state; training updates them in place.
    lists : NeighbourLists
        (n, L) positions in this bank, without the entry itself.
    permanent : Tensor
        (n,) boolean: the record's consent cannot be withdrawn.
    """

    generation: int
    entries: NDArray[np.int64]
    labels: Tensor
    inputs: Tensor
    tokens: Tokens
    lists: NeighbourLists
    permanent: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: NDArray[np.int64], lists: NeighbourLists) -> Bank:
        """Return some of the entries, by position, with neighbour lists among them."""
        chosen = torch.from_numpy(rows)
        return Bank(
            self.generation,
            self.entries[rows],
            self.labels[chosen],
            self.inputs[chosen],
            self.tokens.select(chosen),
            lists,
            self.permanent[chosen],
        )

    def none(self) -> Bank:
        """Return the same bank without any entry."""
        return self.select(np.empty(0, dtype=np.int64), NeighbourLists.empty(0, self.lists.indices.shape[1]))


@dataclass(frozen=True)
class HeldOut:
    """A site's m records of one held-out split: (m, *input_shape) inputs, (m,) labels, (m, L) places in the bank."""

    inputs: Tensor
    labels: Tensor
    lists: NeighbourLists


def read_bank(store: KeyStore, neighbours: int, progress: Progress | None = None) -> Bank:
    """Read the bank, bringing its neighbour lists up to date first.

    Lists that deletions have made shorter than K are searched again. `progress` is called with what is being done, and
    how much of how much is.
    """

    def read(generation: int) -> Bank:
        """Read all entries as they are in a generation of the store."""
        list_arrivals(store, progress)
        entries, labels = store.records.read_entries(Split.TRAIN)
        return Bank(
            generation,
            entries,
            labels,
            store.records.read_inputs(entries),
            store.records.read_tokens(entries),
            read_lists(store, entries, entries, neighbours),
            torch.from_numpy(store.records.read_permanent(entries)),
        )

    return store.until_unchanged(read)


def read_permanent_bank(store: KeyStore, neighbours: int) -> Bank:
    """Read the part of the bank whose consent cannot be withdrawn, with K neighbours among itself.

    It is a function of the permanent records alone: nothing of it depends on which others there are.
    """

    def read(generation: int) -> Bank:
        """Read the permanent entries as they are in a generation of the store."""
        entries, labels = _permanent(store, Split.TRAIN)
        keys = store.records.read_keys(entries)
        lists = nearest(keys, keys, neighbours, own=torch.arange(len(entries)))
        tokens = Tokens.zeros(len(entries), store.description.exemplar_size)
        permanent = torch.ones(len(entries), dtype=torch.bool)
        return Bank(generation, entries, labels, store.records.read_inputs(entries), tokens, lists, permanent)

    return store.until_unchanged(read)


def _permanent(store: KeyStore, split: Split) -> tuple[NDArray[np.int64], Tensor]:
    """Return the entries of a split whose consent cannot be withdrawn, and their labels."""
    entries, labels = store.records.read_entries(split)
    chosen = store.records.read_permanent(entries)
    return entries[chosen], labels[torch.from_numpy(chosen)]


def read_permanent_held_out(store: KeyStore, split: Split, bank: Bank, neighbours: int) -> HeldOut:
    """Read the held-out records whose consent cannot be withdrawn, with their neighbours in a permanent bank.

    Raises `BankChanged` if an entry of the bank was deleted since.
    """
    entries, labels = _permanent(store, split)
    lists = nearest(store.records.read_keys(entries), store.records.read_keys(bank.entries), neighbours)
    return HeldOut(store.records.read_inputs(entries), labels, lists)


def read_held_out(store: KeyStore, split: Split, bank: Bank, neighbours: int) -> HeldOut:
    """Read a held-out split with its neighbours in a bank; raises `BankChanged` if entries were deleted since."""
    entries, labels = store.records.read_entries(split)
    held_out = HeldOut(store.records.read_inputs(entries), labels, read_lists(store, entries, bank.entries, neighbours))
    if store.generation != bank.generation:
        raise BankChanged("entries were deleted while the held-out records were being read")
    return held_out


def retrieve(model: Munkey, bank: Bank, lists: NeighbourLists, neighbours: int) -> Retrieved:
    """Return the first K entries of each of B lists, as exemplar tokens on the model's device."""
    device = model.label_embedding.device
    indices = lists.indices[:, :neighbours]
    present = indices != NONE
    at = indices.clamp_min(0)
    if not len(bank):
        offsets = torch.zeros(*at.shape, model.shape.exemplar_size, device=device)
        labels = torch.zeros_like(at, device=device)
    else:
        offsets, labels = bank.tokens.offsets[at].to(device), bank.labels[at].to(device)
    return Retrieved(
        model.exemplars(labels, offsets), lists.similarities[:, :neighbours].to(device), present.to(device)
    )
