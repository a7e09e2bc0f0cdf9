"""Images as somebody might have them who has lost the originals: slightly changed, and encoded again."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.model.encoders import Encoder
from fedmunkey.common.model.model_choice import choose_encoder
from fedmunkey.common.model.randomness import derive_seed
from fedmunkey.simulations.attacks.asking import honest_records
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Encoded

Images = NDArray[np.uint8]
Alteration = Callable[[Images, np.random.Generator], Images]
"""Changes (n, C, H, W) images; the generator is for what is random in it."""

_NOISE = 6.0
"""Standard deviation, in grey levels of 255."""

_SHIFT = 28
"""An image is shifted by one pixel for so many that it is wide."""

_QUALITY = 60


def _noisy(images: Images, draws: np.random.Generator) -> Images:
    noise = draws.normal(scale=_NOISE, size=images.shape)
    return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)


def _shifted(images: Images, draws: np.random.Generator) -> Images:
    del draws
    by = max(1, images.shape[-1] // _SHIFT)
    padded = np.pad(images, ((0, 0), (0, 0), (by, 0), (by, 0)), mode="edge")
    return padded[:, :, : images.shape[2], : images.shape[3]]


def _mirrored(images: Images, draws: np.random.Generator) -> Images:
    del draws
    return images[:, :, :, ::-1].copy()


def _recompressed(images: Images, draws: np.random.Generator) -> Images:
    del draws
    found = np.empty_like(images)
    for image, changed in zip(images, found, strict=True):
        pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY)
        read = np.asarray(Image.open(file))
        changed[:] = read[None] if read.ndim == 2 else read.transpose(2, 0, 1)
    return found


ALTERATIONS: Mapping[str, Alteration] = MappingProxyType(
    {"noisy": _noisy, "shifted": _shifted, "mirrored": _mirrored, "recompressed": _recompressed}
)
"""By name; none changes what a physician would call an image."""


@dataclass(frozen=True)
class Altered:
    """Records of hospitals that forget something, by alteration and hospital, in the order of the originals.

    `members` are the forgotten ones without canaries, `others` the test records.
    """

    members: Mapping[str, Mapping[str, Encoded]]
    others: Mapping[str, Mapping[str, Encoded]]


def altered(case: Case) -> Altered:
    """Alter and encode the records that a case asks about; what the last case came to is kept."""
    return _altered(_ByIdentity(case))


class _ByIdentity:
    """A case as the key of a cache: the same object, whatever it holds."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def __hash__(self) -> int:
        return id(self.case)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and other.case is self.case


@lru_cache(maxsize=1)
def _altered(key: _ByIdentity) -> Altered:
    case = key.case
    encoder = choose_encoder(case.settings)
    members = honest_records(case)
    others = {h.name: h.given.split(Split.TEST) for h in case.hospitals if h.name in members}
    return Altered(_all(members, encoder, case), _all(others, encoder, case))


def _all(records: Mapping[str, Encoded], encoder: Encoder, case: Case) -> dict[str, dict[str, Encoded]]:
    # Hospitals share test records, so that each image is encoded once.
    known: dict[tuple[str, str], Encoded] = {}
    found: dict[str, dict[str, Encoded]] = {}
    for name, alteration in ALTERATIONS.items():
        found[name] = {}
        for site, some in records.items():
            same = (name, some.records.record_ids.tobytes().hex())
            if same not in known:
                draws = np.random.default_rng(derive_seed(case.settings.seed, "altered", name))
                known[same] = _encoded(some, alteration(some.records.images, draws), encoder)
            found[name][site] = known[same]
    return found


def _encoded(some: Encoded, images: Images, encoder: Encoder) -> Encoded:
    encoding = encoder.encode(torch.from_numpy(np.ascontiguousarray(images)))
    return Encoded(replace(some.records, images=images), encoding)
