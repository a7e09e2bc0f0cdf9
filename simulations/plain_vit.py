"""The same vision transformer without a memory: what hospitals would use instead, and what speed is compared with."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmunkey.common.model import ModelShape
from fedmunkey.common.randomness import generator
from fedmunkey.common.settings import ImagePath, Settings
from fedmunkey.common.transformer import Block, FeatureEmbedding, PatchEmbedding, position_embedding
from fedmunkey.simulations.federated_loop import LocalTraining

_DEPTH = 2
"""Blocks where the `Munkey` has none."""


class PlainViT(nn.Module):
    """Vision transformer (Dosovitskiy et al. 2021) with the image path, blocks and head of a `Munkey`.

    Parameters
    ----------
    shape : ModelShape
        Exemplar tokens are left out.
    """

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.image: PatchEmbedding | FeatureEmbedding
        if shape.image_path is ImagePath.PATCHES:
            channels, height, width = shape.input_shape
            self.image = PatchEmbedding((channels, height, width), shape.patch_size, shape.width)
        else:
            tokens, size = shape.input_shape
            self.image = FeatureEmbedding((tokens, size), shape.width)
        self.position = position_embedding(self.image.tokens, shape.width)
        self.class_token = nn.Parameter(torch.randn(1, 1, shape.width) * 0.02)
        self.blocks = nn.ModuleList(Block(shape.width, shape.heads) for _ in range(shape.depth or _DEPTH))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, num_classes) logits of (B, C, H, W) uint8 images or (B, tokens, size) features."""
        image = self.image(inputs) + self.position
        tokens = torch.cat([image, self.class_token.expand(len(image), -1, -1)], dim=1)
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        read = self.blocks[-1](tokens, rows=slice(self.image.tokens, None))
        logits: Tensor = self.head(self.norm(read[:, 0]))
        return logits


def train_plain(
    model: PlainViT, inputs: Tensor, labels: Tensor, settings: Settings, number: int, draws: torch.Generator
) -> int:
    """Train for a round as `client.training.train` does, without memory and dropout; return the number of examples."""
    fraction = 0.5 * (1 + math.cos(math.pi * (number - 1) / settings.num_rounds))
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate * fraction, weight_decay=settings.weight_decay, fused=True
    )
    model.train()
    for _ in range(settings.local_epochs):
        for rows in torch.randperm(len(labels), generator=draws).split(settings.batch_size):
            loss = F.cross_entropy(model(inputs[rows]), labels[rows], label_smoothing=settings.label_smoothing)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
    model.eval()
    return len(labels)


def plain_site(name: str, inputs: Tensor, labels: Tensor, settings: Settings) -> LocalTraining[PlainViT]:
    """Return the local training of a site without memory."""

    def train_locally(model: PlainViT, number: int) -> int:
        return train_plain(model, inputs, labels, settings, number, generator(settings.seed, name, number))

    return train_locally
