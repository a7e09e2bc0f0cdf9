"""Classifying images that are no records: by the shared weights, and the site's own entries nearest to them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.learning.answering_tokens import AnsweringWeights, read_answering_tokens
from fedmunkey.client.learning.bank import Bank
from fedmunkey.client.learning.evaluation import predict
from fedmunkey.client.learning.exemplar_tokens import own_tokens
from fedmunkey.client.learning.own_memory import answer, read_memory
from fedmunkey.client.records.dataset import Split
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


def classify(
    model: Munkey | Release,
    store: KeyStore,
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
    tokens go with a model that tokens are trained along with, None that none do.
    """
    if isinstance(model, Release):
        return _classify_solved(model, store, keys, inputs, recipe.neighbours, mix)
    bank, lists = store.until_unchanged(
        lambda generation: _read_nearest(model, store, generation, keys, recipe, answering)
    )
    probabilities = predict(model, bank, inputs, lists, recipe.reading)
    return [
        Prediction(tuple(row.tolist()), _neighbours(bank.labels, indices, similarities))
        for row, indices, similarities in zip(probabilities, lists.indices, lists.similarities, strict=True)
    ]


def _classify_solved(
    release: Release, store: KeyStore, keys: Tensor, inputs: Tensor, neighbours: int, mix: CaseMix
) -> list[Prediction]:
    memory, _ = read_memory(store, release)
    answered = answer(release, memory, release.feature_map.read(keys.numpy(), inputs.numpy()))
    chosen = answered.own if mix is CaseMix.OWN else answered.federation

    def find(_generation: int) -> tuple[Tensor, NeighbourLists]:
        entries, labels = store.records.read_entries(Split.TRAIN)
        return labels, nearest(keys, store.records.read_keys(entries), neighbours)

    labels, lists = store.until_unchanged(find)
    return [
        Prediction(tuple(row), _neighbours(labels, indices, similarities))
        for row, indices, similarities in zip(chosen.tolist(), lists.indices, lists.similarities, strict=True)
    ]


def _read_nearest(
    model: Munkey, store: KeyStore, generation: int, keys: Tensor, recipe: Recipe, answering: AnsweringWeights | None
) -> tuple[Bank, NeighbourLists]:
    """Read those entries only that are among the K nearest of any image, and the images' lists among them."""
    entries, labels = store.records.read_entries(Split.TRAIN)
    found = nearest(keys, store.records.read_keys(entries), recipe.neighbours)
    places = found.indices[found.indices != NONE].unique()
    chosen = entries[places.numpy()]
    inputs = store.records.read_inputs(chosen)
    # Others than jointly trained ones follow from these weights, whichever the site has last taken over.
    joint = recipe.route.joint_tokens
    tokens = read_answering_tokens(store, answering, chosen) if joint else own_tokens(model, inputs)
    bank = Bank(
        generation,
        chosen,
        labels[places],
        inputs,
        tokens,
        NeighbourLists.empty(len(chosen), 1),
        torch.from_numpy(store.records.read_permanent(chosen)),
    )
    among = torch.where(found.indices == NONE, NONE, torch.searchsorted(places, found.indices.clamp_min(0)))
    return bank, NeighbourLists(among, found.similarities)


def _neighbours(labels: Tensor, indices: Tensor, similarities: Tensor) -> tuple[Neighbour, ...]:
    pairs = zip(indices.tolist(), similarities.tolist(), strict=True)
    return tuple(Neighbour(int(labels[place]), similarity) for place, similarity in pairs if place != NONE)
