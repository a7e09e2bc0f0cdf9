"""Encoders by name."""

from __future__ import annotations

import difflib

import torch

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.model.encoders.descriptor import DescriptorEncoder, descriptor_feature_shape
from fedmunkey.common.model.encoders.encoder import Encoder
from fedmunkey.common.model.encoders.torchvision_models import (
    TorchvisionEncoder,
    encoder_size,
    torchvision_feature_shape,
    torchvision_names,
)
from fedmunkey.common.settings.settings import DESCRIPTOR, ImageShape


def encoder_names() -> list[str]:
    """Return every name that `make_encoder` takes."""
    return [DESCRIPTOR, *torchvision_names()]


def feature_shape(name: str, image: ImageShape, *, size: int = 0) -> tuple[int, int]:
    """Return tokens and numbers in each of an encoder's features, without loading weights.

    Raises `InvalidSetting` if there is no encoder of that name, or it cannot take images of that size.
    """
    _check_name(name)
    if name == DESCRIPTOR:
        return descriptor_feature_shape(image[0])
    return torchvision_feature_shape(name, encoder_size(name, size, max(image[1:])))


def make_encoder(
    name: str,
    image: ImageShape,
    *,
    weights: str = "",
    size: int = 0,
    mirror: bool = False,
    device: torch.device | None = None,
) -> Encoder:
    """Build an encoder: `descriptor`, or a torchvision model such as `vit_b_16`.

    Raises `InvalidSetting` if there is no encoder of that name, it cannot take images of that size or the weights file
    does not exist, and `InvalidWeights` if the weights cannot be read or downloaded, or belong to another model.

    Parameters
    ----------
    image : ImageShape
        Channels, height and width of the images that it will see.
    weights : str
        File with its weights; empty takes torchvision's own. The descriptor has none.
    size : int
        Side in pixels to which images are resized; 0 chooses.
    mirror : bool
        Whether each image is read a second time, mirrored left to right; the descriptor never does.
    """
    _check_name(name)
    if name == DESCRIPTOR:
        if weights:
            raise InvalidSetting(f"encoder-weights = {weights}: the descriptor has no weights; name another encoder")
        return DescriptorEncoder(image[0])
    side = encoder_size(name, size, max(image[1:]))
    return TorchvisionEncoder(name, weights=weights, size=side, mirror=mirror, device=device or torch.device("cpu"))


def _check_name(name: str) -> None:
    if name == DESCRIPTOR:
        # The others' names come from torchvision, whose import takes seconds.
        return
    names = encoder_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"use {DESCRIPTOR} or a torchvision classification model"
        raise InvalidSetting(f"encoder = {name}: unknown; {hint}")
