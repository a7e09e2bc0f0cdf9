"""Classifying images that are no records: by the shared weights, and the site's own entries nearest to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.bank import Bank
from client.dataset import Split
from client.evaluation import predict
from client.exemplar_tokens import own_tokens
from client.gradient_routes import GradientRoute
from client.key_store import KeyStore, Tokens
from common.model import Munkey
from common.neighbours import NONE, NeighbourLists, nearest
from common.settings import Settings


@dataclass(frozen=True)
class Neighbour:
    """A stored entry that was retrieved: its class and how similar its key is (cosine), and nothing of whose it is."""

    label: int
    similarity: float


@dataclass(frozen=True)
class Prediction:
    """What the model makes of one image.

    Attributes
    ----------
    probabilities : tuple of float
        Of each class.
    neighbours : tuple of Neighbour
        The K nearest entries that the model read, nearest first; fewer in a smaller bank.
    """

    probabilities: tuple[float, ...]
    neighbours: tuple[Neighbour, ...]

    @property
    def label(self) -> int:
        """The most probable class, the one with the smaller number of two."""
        return max(range(len(self.probabilities)), key=lambda label: (self.probabilities[label], -label))

    @property
    def supporting(self) -> tuple[Neighbour, ...]:
        """The neighbours of the predicted class."""
        return tuple(neighbour for neighbour in self.neighbours if neighbour.label == self.label)


def classify(model: Munkey, store: KeyStore, keys: Tensor, inputs: Tensor, settings: Settings) -> list[Prediction]:
    """Classify n images with a site's bank; the key store is only read.

    Parameters
    ----------
    model : Munkey
        With the shared weights.
    store : KeyStore
        The site's key store.
    keys : Tensor
        (n, key_size), by the encoder of the store's keys.
    inputs : Tensor
        (n, *input_shape): what the store's image path reads of the same images.
    settings : Settings
        What the model was trained with: K, the aggregation, and the guarantee, which says where tokens come from.
    """
    bank, lists = store.until_unchanged(lambda generation: _read_nearest(model, store, generation, keys, settings))
    probabilities = predict(model, bank, inputs, lists, settings)
    return [
        Prediction(tuple(row.tolist()), _neighbours(bank, indices, similarities))
        for row, indices, similarities in zip(probabilities, lists.indices, lists.similarities, strict=True)
    ]


def _read_nearest(
    model: Munkey, store: KeyStore, generation: int, keys: Tensor, settings: Settings
) -> tuple[Bank, NeighbourLists]:
    """Read those entries only that are among the K nearest of any image, and the images' lists among them."""
    entries, labels = store.records.read_entries(Split.TRAIN)
    found = nearest(keys, store.records.read_keys(entries), settings.retrieved)
    places = found.indices[found.indices != NONE].unique()
    chosen = entries[places.numpy()]
    inputs = store.records.read_inputs(chosen)
    bank = Bank(
        generation,
        chosen,
        labels[places],
        inputs,
        _tokens(model, store, chosen, inputs, settings),
        NeighbourLists.empty(len(chosen), 1),
        torch.from_numpy(store.records.read_permanent(chosen)),
    )
    among = torch.where(found.indices == NONE, NONE, torch.searchsorted(places, found.indices.clamp_min(0)))
    return bank, NeighbourLists(among, found.similarities)


def _tokens(model: Munkey, store: KeyStore, entries: NDArray[np.int64], inputs: Tensor, settings: Settings) -> Tokens:
    if GradientRoute.of(settings, model.shape).joint_tokens:
        return store.records.read_tokens(entries)
    # A fixed function of the record and these weights, whichever weights the site has last taken over.
    return own_tokens(model, inputs)


def _neighbours(bank: Bank, indices: Tensor, similarities: Tensor) -> tuple[Neighbour, ...]:
    pairs = zip(indices.tolist(), similarities.tolist(), strict=True)
    return tuple(Neighbour(int(bank.labels[place]), similarity) for place, similarity in pairs if place != NONE)
