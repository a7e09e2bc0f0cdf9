"""How a model does on a site's records, with its two pathways and without a model at all."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.learning.bank import Bank, HeldOut, retrieve
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.model.aggregation import vote_weights
from fedmunkey.common.model.metrics import accuracy, macro_f1
from fedmunkey.common.model.model import Munkey
from fedmunkey.common.model.neighbours import NONE, NeighbourLists
from fedmunkey.common.model.pathways import pathway_sensitivity
from fedmunkey.common.model.recipe import Reading

_BATCH = 512


@dataclass(frozen=True)
class Evaluation:
    """Results on one held-out split, of so many records.

    The loss is the mean negative log-likelihood of the labels, in nats. Accuracy and macro F1 are of the whole model,
    then come accuracies of each pathway alone with their sensitivity score (`common.model.pathways`), and that of a
    majority vote of the K nearest entries' labels, without any model.
    """

    examples: int
    loss: float
    accuracy: float
    macro_f1: float
    image_accuracy: float
    memory_accuracy: float
    sensitivity: float
    neighbour_accuracy: float


def evaluate(model: Munkey, bank: Bank, held_out: HeldOut, reading: Reading) -> Evaluation:
    """Evaluate a model with a site's bank on records that are not in it."""
    labels = held_out.labels
    full = predict(model, bank, held_out.inputs, held_out.lists, reading)
    image = predict_image_only(model, held_out.inputs)
    memory = predict(model, bank, held_out.inputs, held_out.lists, reading, image=False)
    votes = neighbour_votes(bank, held_out.lists, reading.neighbours, model.shape.num_classes)
    image_accuracy, memory_accuracy = accuracy(image, labels), accuracy(memory, labels)
    return Evaluation(
        examples=len(labels),
        loss=float(F.nll_loss(full.clamp_min(1e-12).log(), labels)),
        accuracy=accuracy(full, labels),
        macro_f1=macro_f1(full, labels),
        image_accuracy=image_accuracy,
        memory_accuracy=memory_accuracy,
        sensitivity=pathway_sensitivity(image_accuracy, memory_accuracy),
        neighbour_accuracy=accuracy(votes, labels),
    )


def count_right(store: KeyStore, model: Munkey, split: Split) -> int:
    """Return how many of a site's held-out records the image pathway alone answers rightly, without the site's bank."""

    def count(_generation: int) -> int:
        entries, labels = store.records.read_entries(split)
        answered = predict_image_only(model, store.records.read_inputs(entries)).argmax(1)
        return int((answered == labels).sum())

    return store.until_unchanged(count)


@torch.inference_mode()
def predict(
    model: Munkey, bank: Bank, inputs: Tensor, lists: NeighbourLists, reading: Reading, *, image: bool = True
) -> Tensor:
    """Return (n, num_classes) probabilities on the CPU; without `image`, those of the memory pathway alone."""
    device = model.label_embedding.device
    parts = [torch.empty(0, model.shape.num_classes)]
    asked = reading if image else replace(reading, image_vote=False)
    for rows in torch.arange(len(inputs)).split(_BATCH):
        found = retrieve(model, bank, NeighbourLists(lists.indices[rows], lists.similarities[rows]), reading.neighbours)
        null_image = None if image else torch.ones(len(rows), dtype=torch.bool, device=device)
        parts.append(model.classify(inputs[rows].to(device), found, asked, null_image=null_image).cpu())
    return torch.cat(parts)


@torch.inference_mode()
def predict_image_only(model: Munkey, inputs: Tensor) -> Tensor:
    """Return (n, num_classes) probabilities of the image pathway alone, on the CPU."""
    device = model.label_embedding.device
    parts = [model.image_only(part.to(device)).cpu() for part in inputs.split(_BATCH) if len(part)]
    return torch.cat([torch.empty(0, model.shape.num_classes), *parts])


def neighbour_votes(bank: Bank, lists: NeighbourLists, neighbours: int, classes: int) -> Tensor:
    """Return (n, num_classes) shares of the K nearest entries' labels; the nearest of a tie's entries breaks it."""
    indices = lists.indices[:, :neighbours]
    votes = torch.zeros(len(indices), classes)
    if not len(bank):
        return votes
    votes.scatter_add_(1, bank.labels[indices.clamp_min(0)], vote_weights(indices != NONE))
    return votes / votes.sum(1, keepdim=True).clamp_min(1e-12)
