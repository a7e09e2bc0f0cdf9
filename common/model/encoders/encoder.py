"""What a key encoder is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fedmunkey.common.model.encoder_facts import EncoderFacts


@dataclass(frozen=True)
class Encoding:
    """What a frozen encoder makes of N images.

    Keys are (N, key_size) float32 of unit Euclidean length, so that a dot product is the cosine similarity; features
    are (N, tokens, size) float32: the last feature map, pooled to a few tokens.
    """

    keys: Tensor
    features: Tensor


class Encoder(ABC):
    """A frozen function from images to keys and features, never trained on any site's data.

    An encoder uses fixed normalisation constants only and looks at each image by itself: an image's key and features
    have the same bits whatever is encoded with it, in whatever order and by however many threads, so that a key store
    does not tell what else it has ever held.
    """

    key_size: int
    """Numbers in a key."""

    feature_shape: tuple[int, int]
    """Feature tokens of one image and numbers in each."""

    @property
    @abstractmethod
    def facts(self) -> EncoderFacts:
        """What fixes the encoder's keys and features."""

    @property
    def fingerprint(self) -> str:
        """Name, preprocessing and weights in one short text; equal exactly if keys are comparable."""
        return self.facts.fingerprint

    @abstractmethod
    def encode_batch(self, images: Tensor) -> Encoding:
        """Encode (N, C, H, W) uint8 images, C being 1 or 3; no bit of one image's result may depend on another's."""

    def encode(self, images: Tensor, *, batch_size: int = 64) -> Encoding:
        """Encode any number of (N, C, H, W) uint8 images, C being 1 or 3; the result lies on the CPU.

        Other images raise `ValueError`.
        """
        batches = list(self.encode_in_batches(images, batch_size=batch_size))
        if not batches:
            return Encoding(torch.empty(0, self.key_size), torch.empty(0, *self.feature_shape))
        return Encoding(torch.cat([b.keys for b in batches]), torch.cat([b.features for b in batches]))

    @torch.no_grad()
    def encode_in_batches(self, images: Tensor, *, batch_size: int = 64) -> Iterator[Encoding]:
        """Encode batch by batch, so that a caller can store results and show progress as they come."""
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"images must be (N, 1 or 3, H, W) uint8, not {tuple(images.shape)} {images.dtype}")
        if not len(images):
            return
        for batch in torch.split(images, batch_size):
            encoding = self.encode_batch(batch)
            yield Encoding(encoding.keys.float().cpu(), encoding.features.float().cpu())
