"""What pretrained image models have in common as key encoders: how images are prepared, each read alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedmunkey.common.model.encoder_facts import EncoderFacts, model_fingerprint
from fedmunkey.common.model.encoders.encoder import Encoder, Encoding
from fedmunkey.common.model.encoders.pooling import Pooling

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
Found = TypeVar("Found")

MIRRORED = ", averaged with the mirror image"


class Interpolation(StrEnum):
    """How an image is resized."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


@dataclass(frozen=True)
class Preprocessing:
    """What becomes of an image's grey levels, 0 to 255, before a model reads them.

    They are divided by 255 and resized to `size` pixels a side, with antialiasing; then each channel's mean is taken
    off, and the rest divided by its standard deviation. All of it is fixed: a statistic fitted on patients is a leak.
    """

    size: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Interpolation = Interpolation.BILINEAR

    @property
    def words(self) -> str:
        """What becomes of an image beside its size, in one line."""
        mean, std = (" ".join(map(str, numbers)) for numbers in (self.mean, self.std))
        return f"{self.interpolation} with antialiasing, grey in all channels, mean {mean}, deviation {std}"


class ImageModelEncoder(Encoder):
    """A pretrained model of RGB images, without its classifier.

    With `mirror`, features are means over an image and its mirror image, left to right: keys then do not depend on
    which side is which, and lie nearer to those of the same class.

    The order in which convolutions and matrix products add depends on the images in a batch and on the threads that
    share it. So each image is a batch of its own, on any device, and has one thread; a CPU's other threads take other
    images. Another processor, device or version of a library may give other bits.
    """

    def __init__(self, preprocessing: Preprocessing, *, pooling: Pooling, mirror: bool, device: torch.device) -> None:
        self.preprocessing = preprocessing
        self.pooling = pooling
        self.mirror = mirror
        self.device = device
        self._mean = torch.tensor(preprocessing.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocessing.std, device=device).view(1, 3, 1, 1)

    def _facts(self, name: str, weights: str) -> EncoderFacts:
        """Return the facts of a named model whose weights have a digest."""
        size, pooling = self.preprocessing.size, self.pooling
        return EncoderFacts(
            name=name,
            weights=weights,
            preprocessing=f"{self.preprocessing.words}; {pooling.words}{MIRRORED * self.mirror}",
            fingerprint=model_fingerprint(name, size, weights, mirror=self.mirror, pooling=pooling.chosen),
            size=size,
            key_size=self.key_size,
            feature_shape=self.feature_shape,
        )

    @property
    def network(self) -> nn.Module | None:
        """The network in PyTorch that features are pooled from; None where it is none."""
        return None

    def read_prepared(self, pixels: Tensor) -> Tensor:
        """Return (1, tokens, size) features of a prepared image of (1, 3, S, S), not mirrored."""
        return self.pooling.pool(self.answer(pixels))

    @abstractmethod
    def answer(self, pixels: Tensor) -> Tensor:
        """Return what the model answers for a prepared image of (1, 3, S, S), before it is pooled."""

    def encode_poolings(self, images: Tensor, poolings: Sequence[Pooling]) -> list[Encoding]:
        """Encode (N, 1 or 3, H, W) uint8 images once, and return what each of some poolings makes of it."""
        workers = torch.get_num_threads() if self.device.type == "cpu" else 1
        each = _map_alone(lambda image: self._encode_one(image, poolings), images, workers)
        by_pooling = [[one[place] for one in each] for place in range(len(poolings))]
        return [
            Encoding(torch.cat([e.keys for e in some]), torch.cat([e.features for e in some])) for some in by_pooling
        ]

    def encode_batch(self, images: Tensor) -> Encoding:
        """Encode (N, 1 or 3, H, W) uint8 images; grey is repeated over the three channels."""
        return self.encode_poolings(images, [self.pooling])[0]

    @torch.no_grad()
    def _encode_one(self, image: Tensor, poolings: Sequence[Pooling]) -> list[Encoding]:
        """Encode (1, 1 or 3, H, W)."""
        size, mode = self.preprocessing.size, self.preprocessing.interpolation.value
        # The strides that an image comes with would choose among algorithms too.
        pixels = image.clone(memory_format=torch.contiguous_format).to(self.device).float() / 255
        pixels = functional.interpolate(pixels, size=(size, size), mode=mode, antialias=True)
        pixels = (pixels.expand(-1, 3, -1, -1) - self._mean) / self._std
        # Not one batch of two, whose sums could be in another order than those of each alone.
        answers = [self.answer(some) for some in ([pixels, pixels.flip(3)] if self.mirror else [pixels])]
        found = []
        for pooling in poolings:
            first, *mirrored = (pooling.pool(answer) for answer in answers)
            features = (first + mirrored[0]) / 2 if mirrored else first
            found.append(Encoding(functional.normalize(pooling.key(features), dim=1), features))
        return found


def _map_alone(function: Callable[[Tensor], Found], images: Tensor, workers: int) -> list[Found]:
    """Apply a function to each image alone, each in one of some threads that PyTorch does not share out further."""
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, images.split(1)))
    finally:
        # A thread's number is also that with which later ones begin.
        torch.set_num_threads(threads)
