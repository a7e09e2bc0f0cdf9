"""Models without a memory, a vision transformer and a linear one, and how a hospital trains them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.randomness import generator
from fedmunkey.common.model.transformer import Block, FeatureEmbedding, PatchEmbedding, position_embedding
from fedmunkey.common.settings.settings import ImagePath, Settings
from fedmunkey.simulations.federation.federated_loop import LocalTraining
from fedmunkey.simulations.federation.hospitals import Encoded

_DEPTH = 2
"""Blocks where the `Munkey` has none."""


class PlainModel(nn.Module):
    """A model without a memory, of `shape`: it maps inputs as `Encoded.inputs` has them to (B, num_classes) logits."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape


class PlainLinear(PlainModel):
    """A linear function of frozen features, each token normalised, as `exact` and `certified` read them.

    Its weights begin at zero, whatever the seed.
    """

    def __init__(self, shape: ModelShape) -> None:
        super().__init__(shape)
        tokens, size = shape.features
        self.head = nn.Linear(tokens * size, shape.num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, num_classes) logits of (B, tokens, size) features."""
        logits: Tensor = self.head(FeatureEmbedding.normalise(inputs).flatten(1))
        return logits


class PlainViT(PlainModel):
    """Vision transformer (Dosovitskiy et al. 2021) with the image path, blocks and head of a `Munkey`."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__(shape)
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


Loss = Callable[[PlainModel], Tensor]
"""What one step lowers."""


@dataclass(frozen=True)
class Examples:
    """Some records as a model reads them: (n, ...) inputs as `Encoded.inputs` has them, and (n,) class indices."""

    inputs: Tensor
    labels: Tensor

    @classmethod
    def of(cls, some: Encoded, shape: ModelShape) -> Examples:
        """Return a hospital's records; a canary has the label with which it came."""
        return cls(some.inputs(shape), torch.from_numpy(some.records.labels))

    def __len__(self) -> int:
        return len(self.labels)

    def joined(self, others: Examples) -> Examples:
        """Return these records, then others."""
        return Examples(torch.cat([self.inputs, others.inputs]), torch.cat([self.labels, others.labels]))

    def parts(self, size: int) -> Iterator[Examples]:
        """Yield all records once, in order, `size` at a time; nothing if there are none."""
        for start in range(0, len(self), size):
            yield Examples(self.inputs[start : start + size], self.labels[start : start + size])

    def batches(self, size: int, draws: torch.Generator) -> Iterator[Examples]:
        """Yield all records once, in a drawn order, `size` at a time; nothing if there are none."""
        rows = torch.randperm(len(self), generator=draws)
        yield from Examples(self.inputs[rows], self.labels[rows]).parts(size)


def task_loss(model: PlainModel, records: Examples, settings: Settings, *, reduction: str = "mean") -> Tensor:
    """Return the loss that training lowers: the mean over some records or, without a reduction, (n,) losses."""
    smoothing = settings.label_smoothing
    return F.cross_entropy(model(records.inputs), records.labels, label_smoothing=smoothing, reduction=reduction)


def falling(number: int, rounds: int) -> float:
    """Return the share of the learning rate in a round, from 1: half a cosine, as for a MUNKEY site."""
    return 0.5 * (1 + math.cos(math.pi * (number - 1) / rounds))


def descend(model: PlainModel, losses: Iterable[Loss], rate: float, settings: Settings) -> bool:
    """Take one step of AdamW for each loss; return whether there was any."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=settings.weight_decay, fused=True)
    stepped = False
    model.train()
    for loss in losses:
        optimiser.zero_grad(set_to_none=True)
        loss(model).backward()
        optimiser.step()
        stepped = True
    model.eval()
    return stepped


def train_plain(
    model: PlainModel, inputs: Tensor, labels: Tensor, settings: Settings, number: int, draws: torch.Generator
) -> int:
    """Train for a round as `client.learning.training` does, without memory and dropout; return how many examples."""
    records = Examples(inputs, labels)
    losses = (
        partial(task_loss, records=batch, settings=settings)
        for _ in range(settings.local_epochs)
        for batch in records.batches(settings.batch_size, draws)
    )
    descend(model, losses, settings.learning_rate * falling(number, settings.descending_rounds), settings)
    return len(records)


def plain_site(name: str, records: Examples, settings: Settings) -> LocalTraining[PlainModel]:
    """Return the local training of a site without memory."""

    def train_locally(model: PlainModel, number: int) -> int:
        draws = generator(settings.seed, name, number)
        return train_plain(model, records.inputs, records.labels, settings, number, draws)

    return train_locally
