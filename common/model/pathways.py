"""Pathway dropout, and the score that says which of the two pathways carries the predictions.

Training replaces the image or the memory with a learned null token at random, so that neither path alone carries the
prediction and what is particular to one record settles in its own entry (MUNKEY, arXiv 2603.15033).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedmunkey.common.settings.settings import Settings


@dataclass(frozen=True)
class DroppedPathways:
    """What one training step of B records with M members leaves out or puts in, all boolean.

    Attributes
    ----------
    own : Tensor
        (B,) records whose own entry takes the place of the first member.
    null_memory : Tensor
        (B, M) members whose exemplar token is replaced.
    null_image : Tensor
        (B,) records whose image is replaced.
    """

    own: Tensor
    null_memory: Tensor
    null_image: Tensor

    @classmethod
    def draw(cls, settings: Settings, batch: int, members: int, generator: torch.Generator) -> DroppedPathways:
        """Draw in the settings' shares; no record loses its image and all of its memory at once."""
        own = torch.rand(batch, generator=generator) < settings.self_retrieval
        memory = torch.rand(batch, members, generator=generator) < settings.memory_dropout
        image = (torch.rand(batch, generator=generator) < settings.image_dropout) & ~memory.all(1)
        return cls(own, memory, image)


def pathway_sensitivity(image_accuracy: float, memory_accuracy: float) -> float:
    """Compare the accuracy of the image path alone with that of the memory path alone.

    The paper names a score that compares the two without giving a formula; this is the normalised difference (memory -
    image) / (memory + image): from -1, the image carries everything, over 0, both alike, to 1, the memory carries
    everything. Two accuracies of zero give 0.
    """
    total = image_accuracy + memory_accuracy
    return (memory_accuracy - image_accuracy) / total if total else 0.0
