"""MUNKEY: a vision transformer that reads exemplar tokens from a memory bank beside the image (arXiv 2603.15033).

The model holds the shared weights only. Keys and exemplar tokens belong to a site's bank and are handed in. An exemplar
token is the label embedding of its entry's class, which is shared, plus the entry's own learned offset, which never
leaves the site: `Munkey.exemplars`. See `docs/decisions/0002-exemplar-tokens-are-offsets.md`.

A member's logits are a sum of three: the transformer's, which start at zero; a linear function of the image input,
which starts at zero; and what the exemplar token says by itself, its product with the label embeddings. So the first
weights vote as the nearest neighbours do, and training improves on that: `docs/decisions/0007-first-weights-vote.md`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedmunkey.common.model.aggregation import Members, Retrieved, aggregate
from fedmunkey.common.model.recipe import Reading, Recipe
from fedmunkey.common.model.transformer import (
    MEMBER_TOKENS,
    Block,
    FeatureEmbedding,
    PatchEmbedding,
    packed_mask,
    position_embedding,
)
from fedmunkey.common.settings.settings import ImagePath

_LABEL_SIZE = 0.5
"""Root mean square of a label embedding's numbers in the first weights."""

_FIRST_STRENGTH = 2.0
"""What an entry says about its own class in the first weights, in nats."""


@dataclass(frozen=True)
class ModelShape:
    """Everything that fixes the names and shapes of the shared weights.

    `input_shape` is (C, H, W) of images on the `patches` path, (tokens, size) of features on the `frozen` path, where
    `patch_size` is 0. Without any block there is no transformer, only the linear function and the memory.
    """

    image_path: ImagePath
    input_shape: tuple[int, ...]
    patch_size: int
    num_classes: int
    width: int
    depth: int
    heads: int
    exemplar_size: int

    @classmethod
    def of(cls, recipe: Recipe, feature_shape: tuple[int, int]) -> ModelShape:
        """Return a recipe's shape, beside an encoder whose features have some shape, (tokens, size)."""
        settings, frozen = recipe.settings, recipe.image_path is ImagePath.FROZEN
        return cls(
            image_path=recipe.image_path,
            input_shape=feature_shape if frozen else tuple(settings.image_shape),
            patch_size=recipe.patch_size,
            num_classes=settings.num_classes,
            width=settings.width,
            depth=recipe.depth,
            heads=settings.heads,
            exemplar_size=settings.exemplar_size,
        )

    @property
    def features(self) -> tuple[int, int]:
        """The frozen features that are read, tokens and numbers in each; none on the `patches` path."""
        return (self.input_shape[0], self.input_shape[1]) if self.image_path is ImagePath.FROZEN else (0, 0)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {**asdict(self), "image_path": self.image_path.value, "input_shape": list(self.input_shape)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ModelShape:
        """Read what `to_json` wrote."""
        known = {**values, "image_path": ImagePath(values["image_path"]), "input_shape": tuple(values["input_shape"])}
        return cls(**known)


class Munkey(nn.Module):
    """The shared weights.

    Image tokens attend to image tokens only. A *member* is a pair of class token and exemplar token that attends to the
    image tokens and to itself, so that any number of members share one pass over the image (a packed ensemble).
    """

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.label_embedding = nn.Parameter(_label_embeddings(shape.num_classes, shape.exemplar_size))
        self.memory_strength = nn.Parameter(torch.tensor(_FIRST_STRENGTH))
        self.linear = _zero_linear(math.prod(shape.input_shape), shape.num_classes)
        self.image_tokens = 0
        if shape.depth:
            self._add_transformer()

    def _add_transformer(self) -> None:
        shape = self.shape
        self.image: PatchEmbedding | FeatureEmbedding
        if shape.image_path is ImagePath.PATCHES:
            channels, height, width = shape.input_shape
            self.image = PatchEmbedding((channels, height, width), shape.patch_size, shape.width)
        else:
            tokens, size = shape.input_shape
            self.image = FeatureEmbedding((tokens, size), shape.width)
        self.image_tokens = self.image.tokens
        self.position = position_embedding(self.image_tokens, shape.width)
        self.null_image = nn.Parameter(torch.randn(1, 1, shape.width) * 0.02)
        self.null_memory = nn.Parameter(torch.randn(shape.exemplar_size) * 0.02)
        self.exemplar_project = nn.Linear(shape.exemplar_size, shape.width)
        self.class_token = nn.Parameter(torch.randn(1, 1, shape.width) * 0.02)
        self.blocks = nn.ModuleList(Block(shape.width, shape.heads) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width)
        self.head = _zero_linear(shape.width, shape.num_classes)

    def exemplars(self, labels: Tensor, offsets: Tensor) -> Tensor:
        """Return exemplar tokens (..., E): the embedding of each label (...) plus its entry's own offset (..., E)."""
        tokens: Tensor = self.label_embedding[labels] + offsets
        return tokens

    def forward(
        self, inputs: Tensor, exemplars: Tensor, *, null_memory: Tensor | None = None, null_image: Tensor | None = None
    ) -> Tensor:
        """Compute every member's class logits in one pass, (B, M, num_classes).

        Raises `ValueError` if a tensor does not have its shape.

        Parameters
        ----------
        inputs : Tensor
            (B, C, H, W) uint8 images on the `patches` path, (B, tokens, size) features on the `frozen` path.
        exemplars : Tensor
            (B, M, E) exemplar tokens.
        null_memory : Tensor, optional
            (B, M) boolean; True replaces the exemplar token with the learned null token.
        null_image : Tensor, optional
            (B,) boolean; True replaces the image with the learned null token.
        """
        self._check(inputs, exemplars, null_memory, null_image)
        said = self.memory_logits(exemplars)
        if null_memory is not None:
            said = said.masked_fill(null_memory[..., None], 0.0)
        logits = said + self.image_logits(inputs, null_image)[:, None]
        if self.shape.depth:
            logits = logits + self._transform(inputs, exemplars, null_memory, null_image)
        return logits

    def _transform(
        self, inputs: Tensor, exemplars: Tensor, null_memory: Tensor | None, null_image: Tensor | None
    ) -> Tensor:
        """Return the transformer's part of the logits."""
        batch, members, _ = exemplars.shape
        image = self.image(inputs)
        if null_image is not None:
            image = torch.where(null_image[:, None, None], self.null_image, image)
        if null_memory is not None:
            exemplars = torch.where(null_memory[..., None], self.null_memory, exemplars)
        pair = torch.stack([self.class_token.expand(batch, members, -1), self.exemplar_project(exemplars)], dim=2)
        tokens = torch.cat([image + self.position, pair.flatten(1, 2)], dim=1)
        mask = packed_mask(self.image_tokens, members, tokens.device)
        for block in self.blocks[:-1]:
            tokens = block(tokens, mask, shared=self.image_tokens)
        class_tokens = slice(self.image_tokens, None, MEMBER_TOKENS)
        read = self.blocks[-1](tokens, mask, shared=self.image_tokens, rows=class_tokens)
        logits: Tensor = self.head(self.norm(read))
        return logits

    def image_logits(self, inputs: Tensor, null_image: Tensor | None = None) -> Tensor:
        """Return what the linear function makes of the image inputs, (B, num_classes): only its bias for no image."""
        embedding = PatchEmbedding if self.shape.image_path is ImagePath.PATCHES else FeatureEmbedding
        flat = embedding.normalise(inputs).flatten(1)
        if null_image is not None:
            flat = flat.masked_fill(null_image[:, None], 0.0)
        logits: Tensor = self.linear(flat / math.sqrt(flat.shape[1]))
        return logits

    def memory_logits(self, exemplars: Tensor) -> Tensor:
        """Return what exemplar tokens (..., E) say by themselves, (..., num_classes)."""
        size = _LABEL_SIZE**2 * self.shape.exemplar_size
        logits: Tensor = self.memory_strength * (exemplars @ self.label_embedding.T) / size
        return logits

    def predict(self, inputs: Tensor, members: Members, *, null_image: Tensor | None = None) -> Tensor:
        """Return (B, num_classes) probabilities: the members' weighted average."""
        logits: Tensor = self(inputs, members.exemplars, null_memory=members.null_memory, null_image=null_image)
        return (logits.softmax(-1) * members.weights[..., None]).sum(1)

    def classify(
        self, inputs: Tensor, found: Retrieved, reading: Reading, *, null_image: Tensor | None = None
    ) -> Tensor:
        """Return (B, num_classes) probabilities for retrieved entries."""
        return self.predict(inputs, aggregate(found, reading), null_image=null_image)

    def image_only(self, inputs: Tensor) -> Tensor:
        """Return (B, num_classes) probabilities of the image path alone, with null memory."""
        batch = len(inputs)
        nothing = self.label_embedding.new_zeros(batch, 1, self.shape.exemplar_size)
        always = torch.ones(batch, 1, dtype=torch.bool, device=nothing.device)
        return self.predict(inputs, Members(nothing, always, torch.ones_like(nothing[..., 0])))

    def _check(self, inputs: Tensor, exemplars: Tensor, null_memory: Tensor | None, null_image: Tensor | None) -> None:
        if inputs.ndim != 1 + len(self.shape.input_shape) or tuple(inputs.shape[1:]) != self.shape.input_shape:
            sizes = ", ".join(map(str, self.shape.input_shape))
            raise ValueError(f"inputs must be (B, {sizes}), not {tuple(inputs.shape)}")
        batch, size = len(inputs), self.shape.exemplar_size
        if exemplars.ndim != 3 or len(exemplars) != batch or exemplars.shape[2] != size or not exemplars.shape[1]:
            raise ValueError(f"exemplars must be ({batch}, M, {size}) with M >= 1, not {tuple(exemplars.shape)}")
        if null_memory is not None and null_memory.shape != exemplars.shape[:2]:
            raise ValueError(f"null_memory must be {tuple(exemplars.shape[:2])}, not {tuple(null_memory.shape)}")
        if null_image is not None and null_image.shape != (batch,):
            raise ValueError(f"null_image must be ({batch},), not {tuple(null_image.shape)}")


def _label_embeddings(classes: int, size: int) -> Tensor:
    """Return (classes, size) embeddings of one length; orthogonal, where there are not more classes than numbers."""
    length = _LABEL_SIZE * math.sqrt(size)
    drawn = torch.randn(classes, size)
    if classes > size:
        return nn.functional.normalize(drawn) * length
    return nn.init.orthogonal_(drawn, gain=length)


def _zero_linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
