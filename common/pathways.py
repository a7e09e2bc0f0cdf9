"""Pathway dropout, and the score that says which of the two pathways carries the predictions.

Training replaces the image or the memory with a learned null token at random, so that neither path alone carries the
prediction and what is particular to one record settles in its own entry (MUNKEY, arXiv 2603.15033).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedmunkey.common.settings import Settings


@dataclass(frozen=True)
class PathwayDropout:
    """Shares of training steps in which something is left out or put in.

    Attributes
    ----------
    image : float
        Share of records whose image is replaced.
    memory : float
        Share of members whose exemplar token is replaced.
    self_retrieval : float
        Share of records whose own entry takes the place of the first member.
    """

    image: float
    memory: float
    self_retrieval: float

    @classmethod
    def from_settings(cls, settings: Settings) -> PathwayDropout:
        """Read the three shares from the federation's settings."""
        return cls(settings.image_dropout, settings.memory_dropout, settings.self_retrieval)

    def sample(self, batch: int, members: int, generator: torch.Generator) -> DroppedPathways:
        """Draw what one training step leaves out; no record loses its image and all of its memory at once."""
        own = torch.rand(batch, generator=generator) < self.self_retrieval
        memory = torch.rand(batch, members, generator=generator) < self.memory
        image = (torch.rand(batch, generator=generator) < self.image) & ~memory.all(1)
        return DroppedPathways(own, memory, image)


@dataclass(frozen=True)
class DroppedPathways:
    """One draw of `PathwayDropout`: `own` (B,), `null_memory` (B, M) and `null_image` (B,), all boolean."""

    own: Tensor
    null_memory: Tensor
    null_image: Tensor


def pathway_sensitivity(image_accuracy: float, memory_accuracy: float) -> float:
    """Compare the accuracy of the image path alone with that of the memory path alone.

    The paper names a score that compares the two without giving a formula; this is the normalised difference
    (memory - image) / (memory + image).

    Returns
    -------
    float
        From -1, the image carries everything, over 0, both alike, to 1, the memory carries everything. Two accuracies
        of zero give 0.
    """
    total = image_accuracy + memory_accuracy
    return (memory_accuracy - image_accuracy) / total if total else 0.0
