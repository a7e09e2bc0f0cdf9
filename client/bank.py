"""The part of a key store that training and evaluation hold in memory: no key is in it, neighbour lists are enough."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.dataset import Split
from client.key_store import KeyStore, Tokens
from client.neighbour_index import Progress, list_arrivals, read_lists
from common.aggregation import Retrieved
from common.errors import BankChanged
from common.model import Munkey
from common.neighbours import NONE, NeighbourLists


@dataclass(frozen=True)
class Bank:
    """A site's n entries.

    Attributes
    ----------
    generation : int
        The key store's generation when this was read.
    entries : ndarray
        (n,) int64 entry numbers, ascending.
    labels : Tensor
        (n,) int64.
    inputs : Tensor
        (n, *input_shape): what the image path reads.
    tokens : Tokens
        Offsets and their optimiser state; training updates them in place.
    lists : NeighbourLists
        (n, L) positions in this bank, without the entry itself.
    """

    generation: int
    entries: NDArray[np.int64]
    labels: Tensor
    inputs: Tensor
    tokens: Tokens
    lists: NeighbourLists

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class HeldOut:
    """A site's m records of one held-out split: (m, *input_shape) inputs, (m,) labels, (m, L) places in the bank."""

    inputs: Tensor
    labels: Tensor
    lists: NeighbourLists


def read_bank(store: KeyStore, neighbours: int, progress: Progress | None = None) -> Bank:
    """Read the bank, bringing its neighbour lists up to date first.

    Parameters
    ----------
    store : KeyStore
        The site's key store.
    neighbours : int
        K: lists that deletions have made shorter are searched again.
    progress : callable, optional
        Called with what is being done, and how much of how much is.
    """
    while True:
        generation = store.generation
        try:
            list_arrivals(store, progress)
            entries, labels = store.read_entries(Split.TRAIN)
            bank = Bank(
                generation,
                entries,
                labels,
                store.read_inputs(entries),
                store.read_tokens(entries),
                read_lists(store, entries, entries, neighbours),
            )
        except BankChanged:
            continue
        if store.generation == generation:
            return bank


def read_held_out(store: KeyStore, split: Split, bank: Bank, neighbours: int) -> HeldOut:
    """Read a held-out split with its neighbours in a bank that was read before.

    Raises
    ------
    BankChanged
        If entries were deleted since.
    """
    entries, labels = store.read_entries(split)
    held_out = HeldOut(store.read_inputs(entries), labels, read_lists(store, entries, bank.entries, neighbours))
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
