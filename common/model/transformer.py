"""Transformer blocks, and the attention mask that packs an ensemble into one pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

MEMBER_TOKENS = 2
"""Tokens of one ensemble member: its class token and its exemplar token."""


def packed_mask(image_tokens: int, members: int, device: torch.device | None = None) -> Tensor:
    """Say which token may attend to which when members share one image computation.

    Image tokens attend to image tokens only. A member's tokens attend to the image tokens and to the member itself,
    never to another member, so each member's result is what a pass with that member alone gives. The mask is boolean,
    (image_tokens + 2 * members) squared; True at [i, j] lets token i attend to token j.
    """
    size = image_tokens + MEMBER_TOKENS * members
    mask = torch.zeros(size, size, dtype=torch.bool, device=device)
    mask[:, :image_tokens] = True
    member = torch.arange(members, device=device).repeat_interleave(MEMBER_TOKENS)
    mask[image_tokens:, image_tokens:] = member[:, None] == member[None, :]
    return mask


class Block(nn.Module):
    """Pre-norm transformer block (Dosovitskiy et al. 2021, section 3.1): attention, then a two-layer MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.attention_out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, *, shared: int = 0, rows: slice = slice(None)
    ) -> Tensor:
        """Update some of (B, T, width) tokens, (B, updated tokens, width); the others serve as keys and values only.

        Parameters
        ----------
        mask : Tensor, optional
            Boolean (T, T), True where attention is allowed; without it all tokens see all tokens.
        shared : int
            How many tokens at the beginning attend to each other and to nothing else, as the mask must say, too: they
            are spared the mask, which makes attention slow.
        rows : slice
            Which tokens to update. A last block leaves out what nothing reads.
        """
        normed = self.attention_norm(tokens)
        updated = tokens[:, rows]
        query = self._heads(self.query(normed[:, rows]))
        key, value = (self._heads(part) for part in self.key_value(normed).chunk(2, dim=-1))
        alone = len(range(shared)[rows])
        parts = []
        if alone:
            parts.append(_attend(query[:, :, :alone], key[:, :, :shared], value[:, :, :shared]))
        if alone < query.shape[2]:
            allowed = None if mask is None else mask[rows][alone:]
            parts.append(_attend(query[:, :, alone:], key, value, allowed))
        attended = torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]
        updated = updated + self.attention_out(attended.transpose(1, 2).flatten(2))
        output: Tensor = updated + self.mlp(self.mlp_norm(updated))
        return output

    def _heads(self, tokens: Tensor) -> Tensor:
        """Turn (B, T, width) into (B, heads, T, width / heads)."""
        split: Tensor = tokens.unflatten(-1, (self.heads, -1))
        return split.transpose(1, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


class PatchEmbedding(nn.Module):
    """Trainable patch embedding of 8-bit images with fixed normalisation to [-1, 1]."""

    def __init__(self, shape: tuple[int, int, int], patch: int, width: int) -> None:
        super().__init__()
        channels, self.height, self.width = shape
        self.patch = patch
        self.tokens = (self.height // patch) * (self.width // patch)
        self.project = nn.Linear(channels * patch * patch, width)

    def forward(self, images: Tensor) -> Tensor:
        """Turn (B, C, H, W) uint8 images into (B, tokens, width)."""
        pixels = self.normalise(images)
        batch, channels, _, _ = pixels.shape
        side = self.patch
        grid = pixels.view(batch, channels, self.height // side, side, self.width // side, side)
        flat = grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, self.tokens, channels * side * side)
        projected: Tensor = self.project(flat)
        return projected

    @staticmethod
    def normalise(images: Tensor) -> Tensor:
        """Return images with pixels from -1 to 1."""
        return images.float().div(127.5).sub(1.0)


class FeatureEmbedding(nn.Module):
    """Projection of a frozen encoder's feature tokens, (tokens, size) an image, each layer-normalised by itself."""

    def __init__(self, shape: tuple[int, int], width: int) -> None:
        super().__init__()
        self.tokens, size = shape
        self.norm = nn.LayerNorm(size)
        self.project = nn.Linear(size, width)

    def forward(self, features: Tensor) -> Tensor:
        """Turn (B, tokens, size) floating-point features into (B, tokens, width)."""
        projected: Tensor = self.project(self.norm(features.float()))
        return projected

    @staticmethod
    def normalise(features: Tensor) -> Tensor:
        """Return feature tokens with mean 0 and variance 1 each."""
        return functional.layer_norm(features.float(), features.shape[-1:])


def position_embedding(tokens: int, width: int) -> nn.Parameter:
    """Make a learned position embedding.

    It starts at a standard deviation of 0.5, not the usual 0.02: a small transformer that sees a few thousand images
    otherwise spends its training finding out where the patches are (digits, plain ViT: 91% against 98%).
    """
    return nn.Parameter(torch.randn(1, tokens, width) * 0.5)
