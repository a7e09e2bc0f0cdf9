"""Encoders by name."""

from __future__ import annotations

import difflib
from pathlib import Path

import torch

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.model.encoder_facts import EncoderFacts
from fedmunkey.common.model.encoders.descriptor import DescriptorEncoder, descriptor_feature_shape
from fedmunkey.common.model.encoders.encoder import Encoder
from fedmunkey.common.model.encoders.encoder_card import read_encoder_card
from fedmunkey.common.model.encoders.lite_models import LiteEncoder, lite_feature_shape, lite_names
from fedmunkey.common.model.encoders.onnx_models import OnnxEncoder, onnx_facts, onnx_feature_shape
from fedmunkey.common.model.encoders.pooling import Pooling
from fedmunkey.common.model.encoders.torchvision_models import (
    TorchvisionEncoder,
    encoder_size,
    poolings_of,
    torchvision_feature_shape,
    torchvision_names,
)
from fedmunkey.common.settings.settings import DESCRIPTOR, ONNX, ImageShape, PoolingName


def encoder_names() -> list[str]:
    """Return every name that `make_encoder` takes."""
    return [DESCRIPTOR, ONNX, *lite_names(), *torchvision_names()]


def feature_shape(
    name: str, image: ImageShape, *, weights: str = "", size: int = 0, pooling: PoolingName = PoolingName.AUTO
) -> tuple[int, int]:
    """Return tokens and numbers in each of an encoder's features, without loading weights.

    Raises `InvalidSetting` if there is no encoder of that name, it cannot take images of that size, or the card of an
    ONNX file is not there, and `InvalidWeights` if that is no card.
    """
    _check_name(name)
    chosen = _pooling(name, pooling)
    if name == DESCRIPTOR:
        return descriptor_feature_shape(image[0])
    if name == ONNX:
        return onnx_feature_shape(_onnx_file(weights, size))
    if name in lite_names():
        return lite_feature_shape(chosen)
    return torchvision_feature_shape(name, encoder_size(name, size, max(image[1:])), chosen)


def make_encoder(
    name: str,
    image: ImageShape,
    *,
    weights: str = "",
    size: int = 0,
    pooling: PoolingName = PoolingName.AUTO,
    mirror: bool = False,
    device: torch.device | None = None,
) -> Encoder:
    """Build an encoder: `descriptor`, a model in ONNX, EfficientNet-Lite or a torchvision model such as `vit_b_16`.

    Raises `InvalidSetting` if there is no encoder of that name, it cannot take images of that size or the weights file
    does not exist, and `InvalidWeights` if the weights cannot be read or downloaded, or belong to another model.

    Parameters
    ----------
    image : ImageShape
        Channels, height and width of the images that it will see.
    weights : str
        File with its weights; empty takes torchvision's own, or those that an extra installed. The descriptor has none;
        an ONNX file is model and weights in one, with a card beside it.
    size : int
        Side in pixels to which images are resized; 0 chooses. That of an ONNX file is its card's.
    pooling : PoolingName
        How feature maps become tokens; `auto` takes mean and maximum.
    mirror : bool
        Whether each image is read a second time, mirrored left to right; the descriptor never does.
    """
    _check_name(name)
    chosen = _pooling(name, pooling)
    if name == DESCRIPTOR:
        if weights:
            raise InvalidSetting(f"encoder-weights = {weights}: the descriptor has no weights; name another encoder")
        return DescriptorEncoder(image[0])
    if name == ONNX:
        return OnnxEncoder(_onnx_file(weights, size), mirror=mirror)
    side = encoder_size(name, size, max(image[1:]))
    kind = LiteEncoder if name in lite_names() else TorchvisionEncoder
    return kind(name, weights=weights, size=side, pooling=chosen, mirror=mirror, device=device or torch.device("cpu"))


def encoder_facts(
    name: str,
    image: ImageShape,
    *,
    weights: str = "",
    size: int = 0,
    pooling: PoolingName = PoolingName.AUTO,
    mirror: bool = False,
) -> EncoderFacts:
    """Return what an encoder is made of; of an ONNX file its card is enough. Raises as `make_encoder`."""
    if name == ONNX:
        _pooling(name, pooling)
        return onnx_facts(read_encoder_card(_onnx_file(weights, size)), mirror=mirror)
    return make_encoder(name, image, weights=weights, size=size, pooling=pooling, mirror=mirror).facts


def _check_name(name: str) -> None:
    if name in (DESCRIPTOR, ONNX):
        # The others' names come from torchvision, whose import takes seconds.
        return
    names = encoder_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"use {DESCRIPTOR} or a torchvision classification model"
        raise InvalidSetting(f"encoder = {name}: unknown; {hint}")


def _pooling(name: str, asked: PoolingName) -> Pooling:
    """Return how an encoder of a name pools; raises `InvalidSetting` for one that leaves no choice."""
    fitting = poolings_of(name) if name not in (DESCRIPTOR, ONNX) else ()
    if asked is PoolingName.AUTO:
        return fitting[0] if fitting else Pooling.NONE
    if Pooling(asked.value) not in fitting:
        way_out = "its card says how it is pooled" if name == ONNX else f"{name} has no feature maps"
        raise InvalidSetting(f"encoder-pooling = {asked.value}: {way_out}; leave it out")
    return Pooling(asked.value)


def _onnx_file(weights: str, size: int) -> Path:
    if not weights:
        raise InvalidSetting(f"encoder = {ONNX}: name the model's file, as encoder = {ONNX}:FILE")
    if size:
        raise InvalidSetting(f"encoder-size = {size}: an ONNX file reads images of the size on its card; leave it out")
    return Path(weights)
