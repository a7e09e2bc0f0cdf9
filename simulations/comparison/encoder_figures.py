"""What an encoder is worth on a data set: accuracy, time an image, and how much it keeps of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedmunkey.client.importing.encoding import encode
from fedmunkey.client.records.dataset import Dataset, Split
from fedmunkey.common.model.encoders import Encoder, Encoding
from fedmunkey.common.model.encoders.image_model import ImageModelEncoder
from fedmunkey.common.model.encoders.pooling import OF_MAPS, Pooling
from fedmunkey.common.model.metrics import accuracy
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.randomness import derive_seed
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import ImagePath, Settings
from fedmunkey.simulations.federation.hospitals import Encoded
from fedmunkey.simulations.unlearning.closed_form import ClosedFormFamily
from fedmunkey.simulations.unlearning.nearest_neighbours import NeighbourFamily

_SITE = "all"
_BATCH = 64
_BYTES = 4
"""Of a number in a key store."""


@dataclass(frozen=True)
class PooledFigures:
    """One pooling of an encoder's answers on one data set; accuracies in percent.

    Attributes
    ----------
    pooling : str
        Its name; empty where the encoder has one way only.
    numbers : int
        Of one record's features, which is about what its key has as well.
    validation, test : float
        Accuracy of the weights that `exact` solves for, from all training records.
    neighbours : float
        Test accuracy of the four nearest keys' votes.
    """

    pooling: str
    numbers: int
    validation: float
    test: float
    neighbours: float

    @property
    def kilobytes(self) -> float:
        """Of one record's features."""
        return self.numbers * _BYTES / 1000


@dataclass(frozen=True)
class EncoderFigures:
    """One encoder on one data set: what each pooling came to, and the processor's milliseconds that an image takes."""

    data: str
    encoder: str
    records: int
    milliseconds: float
    poolings: Sequence[PooledFigures]

    @property
    def chosen(self) -> PooledFigures:
        """The pooling with the best validation accuracy; of several that with the fewest numbers."""
        return max(self.poolings, key=lambda one: (one.validation, -one.numbers))


def sample(dataset: Dataset, most: int, seed: int) -> Dataset:
    """Return at most so many records of each split, drawn uniformly; the same for every encoder."""
    rows = []
    for split in Split:
        own = np.flatnonzero(dataset.splits == split.value)
        drawn = np.random.default_rng(derive_seed(seed, "sample", split.value)).permutation(len(own))[:most]
        rows.append(own[drawn])
    return dataset.select(np.sort(np.concatenate(rows)))


def poolings_of(encoder: Encoder) -> tuple[Pooling, ...]:
    """Return by what an encoder's answers may be pooled; nothing where there is no choice."""
    if isinstance(encoder, ImageModelEncoder) and encoder.pooling in OF_MAPS:
        return OF_MAPS
    return ()


def measure_encoder(
    data: str, name: str, dataset: Dataset, encoder: Encoder, settings: Settings, progress: Callable[[int], None]
) -> EncoderFigures:
    """Encode records once, and judge what every pooling makes of them.

    Pooling is chosen on validation records, so all poolings see one pass through the model. The time is that of one
    processor, mirror images included where the encoder reads them.
    """
    poolings = poolings_of(encoder)
    begun = time.process_time()
    if isinstance(encoder, ImageModelEncoder) and poolings:
        images = torch.from_numpy(dataset.images)
        parts = []
        for batch in images.split(_BATCH):
            parts.append(encoder.encode_poolings(batch, poolings))
            progress(len(batch))
        encodings = [_joined([part[place] for part in parts]) for place in range(len(poolings))]
    else:
        alone = []
        for batch_of, encoding in encode(encoder, dataset):
            alone.append(encoding)
            progress(len(batch_of))
        encodings = [_joined(alone)]
    seconds = time.process_time() - begun
    names = [pooling.value for pooling in poolings] or [""]
    judged = [
        _judged(pooling, Encoded(dataset, encoding), settings)
        for pooling, encoding in zip(names, encodings, strict=True)
    ]
    return EncoderFigures(data, name, len(dataset), 1000 * seconds / len(dataset), judged)


def _judged(pooling: str, records: Encoded, settings: Settings) -> PooledFigures:
    exact = settings.replace(guarantee=Guarantee.EXACT.value, image_path=ImagePath.FROZEN.value)
    tokens, size = records.encoding.features.shape[1:]
    shape = ModelShape.of(Recipe.of(exact), (int(tokens), int(size)))
    train = {_SITE: records.split(Split.TRAIN)}
    solved = ClosedFormFamily().train(train, exact, shape)
    neighbours = NeighbourFamily().train(train, exact, shape)

    def right(answers: torch.Tensor, some: Encoded) -> float:
        """Return the accuracy in percent."""
        labels: NDArray[np.int64] = some.records.labels
        return 100 * float(np.mean(accuracy(answers, torch.from_numpy(labels))))

    validation, test = records.split(Split.VAL), records.split(Split.TEST)
    return PooledFigures(
        pooling,
        int(tokens * size),
        right(solved.answer(_SITE, validation), validation),
        right(solved.answer(_SITE, test), test),
        right(neighbours.answer(_SITE, test), test),
    )


def _joined(parts: Sequence[Encoding]) -> Encoding:
    return Encoding(torch.cat([part.keys for part in parts]), torch.cat([part.features for part in parts]))
