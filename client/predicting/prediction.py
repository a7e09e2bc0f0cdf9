"""Classifying images that are no records: by the shared weights, and the site's own entries nearest to them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.learning.answering_tokens import AnsweringWeights, read_answering_tokens
from fedmunkey.client.learning.bank import Bank
from fedmunkey.client.learning.evaluation import predict
from fedmunkey.client.learning.exemplar_tokens import own_tokens
from fedmunkey.client.learning.own_memory import answer, read_memory
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.closed_form.memory import Memory
from fedmunkey.common.closed_form.release import Release
from fedmunkey.common.model.model import Munkey
from fedmunkey.common.model.neighbours import NONE, NeighbourLists, nearest
from fedmunkey.common.model.recipe import Recipe


class CaseMix(StrEnum):
    """Which class frequencies an answer assumes; only solved weights tell the two apart."""

    FEDERATION = "federation"
    OWN = "own"


@dataclass(frozen=True)
class Neighbour:
    """A stored entry that was retrieved: its class and how similar its key is (cosine), and nothing of whose it is."""

    label: int
    similarity: float


@dataclass(frozen=True)
class Prediction:
    """What the model makes of one image.

    It gives each class a probability, and has read the K nearest entries, nearest first; fewer in a smaller bank.
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


@dataclass(frozen=True)
class HeldBank:
    """What every answer needs of a site's n entries.

    Attributes
    ----------
    generation : int
        The key store's generation when this was read.
    entries, labels, keys
        (n,) int64 entry numbers, (n,) int64 classes, and (n, key_size) float32.
    memory : Memory, optional
        What the bank adds to the answers of solved weights.
    """

    generation: int
    entries: NDArray[np.int64]
    labels: Tensor
    keys: Tensor
    memory: Memory | None

    @classmethod
    def read(cls, store: KeyStore, model: Munkey | Release) -> HeldBank:
        """Read a site's bank, and solve for its memory where weights are solved for."""

        def read(generation: int) -> HeldBank:
            memory = read_memory(store, model)[0] if isinstance(model, Release) else None
            entries, labels = store.records.read_entries(Split.TRAIN)
            return cls(generation, entries, labels, store.records.read_keys(entries), memory)

        return store.until_unchanged(read)

    def erase(self) -> None:
        """Overwrite what was read of records, so that memory does not hold a deleted one for as long as it is free."""
        self.keys.zero_()
        if self.memory is not None:
            self.memory.tokens.fill(0)
            self.memory.weights.fill(0)


def classify(
    model: Munkey | Release,
    store: KeyStore,
    bank: HeldBank,
    keys: Tensor,
    inputs: Tensor,
    recipe: Recipe,
    mix: CaseMix = CaseMix.OWN,
    answering: AnsweringWeights | None = None,
) -> list[Prediction]:
    """Classify n images with a site's bank; the key store is only read.

    The images' (n, key_size) keys are by the encoder of the store's, their (n, *input_shape) inputs what its image path
    reads. The recipe is that by which the model was made: its guarantee says where tokens come from. Released weights
    answer for the federation's case mix; with the memory of the site's bank, for the site's own. `answering` says which
    tokens go with a model that tokens are trained along with, None that none do. Raises `BankChanged` if an entry that
    would be read was deleted since the bank was read.
    """
    found = nearest(keys, bank.keys, recipe.neighbours)
    if isinstance(model, Release) and bank.memory is not None:
        answered = answer(model, bank.memory, model.feature_map.read(keys.numpy(), inputs.numpy()))
        chosen = answered.own if mix is CaseMix.OWN else answered.federation
        return _predictions(torch.from_numpy(chosen), bank.labels, found)
    if isinstance(model, Release):
        raise ValueError("a bank that was read for other weights has no memory")
    near, lists = _read_nearest(model, store, bank, found, recipe, answering)
    return _predictions(predict(model, near, inputs, lists, recipe.reading), near.labels, lists)


def _read_nearest(
    model: Munkey,
    store: KeyStore,
    bank: HeldBank,
    found: NeighbourLists,
    recipe: Recipe,
    answering: AnsweringWeights | None,
) -> tuple[Bank, NeighbourLists]:
    """Read those entries only that are among the K nearest of any image, and the images' lists among them."""
    places = found.indices[found.indices != NONE].unique()
    chosen = bank.entries[places.numpy()]
    inputs = store.records.read_inputs(chosen)
    # Others than jointly trained ones follow from these weights, whichever the site has last taken over.
    joint = recipe.route.joint_tokens
    tokens = read_answering_tokens(store, answering, chosen) if joint else own_tokens(model, inputs)
    near = Bank(
        bank.generation,
        chosen,
        bank.labels[places],
        inputs,
        tokens,
        NeighbourLists.empty(len(chosen), 1),
        torch.from_numpy(store.records.read_permanent(chosen)),
    )
    among = torch.where(found.indices == NONE, NONE, torch.searchsorted(places, found.indices.clamp_min(0)))
    return near, NeighbourLists(among, found.similarities)


def _predictions(probabilities: Tensor, labels: Tensor, lists: NeighbourLists) -> list[Prediction]:
    return [
        Prediction(tuple(row.tolist()), _neighbours(labels, indices, similarities))
        for row, indices, similarities in zip(probabilities, lists.indices, lists.similarities, strict=True)
    ]


def _neighbours(labels: Tensor, indices: Tensor, similarities: Tensor) -> tuple[Neighbour, ...]:
    pairs = zip(indices.tolist(), similarities.tolist(), strict=True)
    return tuple(Neighbour(int(labels[place]), similarity) for place, similarity in pairs if place != NONE)
