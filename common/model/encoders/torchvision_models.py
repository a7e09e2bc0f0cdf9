"""Key encoders from torchvision's classification models, weights from a file or torchvision's own download."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedmunkey.common.errors import InvalidSetting, InvalidWeights
from fedmunkey.common.model.encoder_facts import EncoderFacts
from fedmunkey.common.model.encoders.image_model import (
    ImageModelEncoder,
    Preprocessing,
)
from fedmunkey.common.model.encoders.pooling import OF_MAPS, Pooling
from fedmunkey.common.model.encoders.state_files import load_state, read_state, state_digest
from fedmunkey.common.model.torchvision_import import import_torchvision

_SMALL_IMAGE = 64


def torchvision_names() -> list[str]:
    """Return the names of torchvision's classification models that serve as encoders."""
    models = import_torchvision().models
    return [name for name in models.list_models(module=models) if name.startswith(_FAMILIES)]


def encoder_size(name: str, asked: int, image_side: int) -> int:
    """Return the side to which images are resized: what is asked for, or 224, or 112 for small images.

    A convolutional encoder sees an image of at most 64 pixels as well at 112 as at 224, in a quarter of the time. A
    vision transformer's weights fit one size only, so without one asked for it is that of torchvision's weights.
    """
    if name.startswith("vit_") and not asked:
        return int(import_torchvision().models.get_model_weights(name).DEFAULT.meta["min_size"][0])
    return asked or (112 if image_side <= _SMALL_IMAGE else 224)


def torchvision_feature_shape(name: str, size: int, pooling: Pooling | None = None) -> tuple[int, int]:
    """Return tokens and numbers in each without loading weights, by a pass over an image without data.

    Raises `InvalidSetting` if the model cannot take images of that size.
    """
    try:
        with torch.device("meta"):
            model = _build(name, size)
            answer = _read(name, model, torch.empty(1, 3, size, size))
            pooled = (pooling or poolings_of(name)[0]).pool(answer)
    except (AssertionError, RuntimeError):
        raise InvalidSetting(f"encoder-size = {size}: {name} takes no images of that size; set 0 or another") from None
    return int(pooled.shape[1]), int(pooled.shape[2])


class TorchvisionEncoder(ImageModelEncoder):
    """A torchvision classification model without its classifier.

    Features are the last feature map, pooled to tokens, or class token and mean of the patch tokens of a vision
    transformer. The key is all tokens, or the class token, scaled to unit length. `weights` is a
    file with a state dict (`.pth`, `.pt` or `.safetensors`), or empty for torchvision's own download.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: str,
        size: int,
        pooling: Pooling | None = None,
        mirror: bool = False,
        device: torch.device,
    ) -> None:
        super().__init__(Preprocessing(size), pooling=pooling or poolings_of(name)[0], mirror=mirror, device=device)
        self.name = name
        self.feature_shape = torchvision_feature_shape(name, size, self.pooling)
        model = _build(name, size)
        state = read_state(Path(weights)) if weights else _download(name)
        load_state(model, state, name, weights)
        self._weights = state_digest(state)
        self._model = model.eval().requires_grad_(False).to(device)
        self.key_size = self.pooling.key_size(self.feature_shape[1])

    @property
    def facts(self) -> EncoderFacts:
        """Name, input size, whether images are mirrored as well, and a digest of the weights."""
        return self._facts(self.name, self._weights)

    @property
    def network(self) -> nn.Module:
        """The model."""
        return self._model

    def answer(self, pixels: Tensor) -> Tensor:
        """Return the last feature map of a prepared image, or all tokens of a vision transformer."""
        return _read(self.name, self._model, pixels)


def _build(name: str, size: int) -> nn.Module:
    models = import_torchvision().models
    options: dict[str, Any] = {"weights": None}
    if name.startswith("vit_"):
        options["image_size"] = size
    model: nn.Module = models.get_model(name, **options)
    return model


def poolings_of(name: str) -> tuple[Pooling, ...]:
    """Return by what a model's answer can be pooled; the first is taken where nobody says otherwise."""
    return (Pooling.CLASS_TOKEN,) if name.startswith("vit_") else OF_MAPS


def _read(name: str, model: Any, pixels: Tensor) -> Tensor:
    """Return what a model answers about normalised images: feature maps (N, C, H, W), or tokens (N, T, C)."""
    family = next(family for family in _FAMILIES if name.startswith(family))
    return _READERS[family](model, pixels)


def _read_transformer(model: Any, pixels: Tensor) -> Tensor:
    tokens = model._process_input(pixels)
    tokens = model.encoder(torch.cat([model.class_token.expand(len(tokens), -1, -1), tokens], dim=1))
    return tokens  # type: ignore[no-any-return]


def _read_resnet(model: Any, pixels: Tensor) -> Tensor:
    maps = model.maxpool(model.relu(model.bn1(model.conv1(pixels))))
    return model.layer4(model.layer3(model.layer2(model.layer1(maps))))  # type: ignore[no-any-return]


def _read_features(model: Any, pixels: Tensor) -> Tensor:
    return model.features(pixels)  # type: ignore[no-any-return]


def _read_densenet(model: Any, pixels: Tensor) -> Tensor:
    return functional.relu(model.features(pixels))


_READERS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "vit_": _read_transformer,
    "resnet": _read_resnet,
    "resnext": _read_resnet,
    "wide_resnet": _read_resnet,
    "densenet": _read_densenet,
    "alexnet": _read_features,
    "convnext_": _read_features,
    "efficientnet_": _read_features,
    "mobilenet_": _read_features,
    "squeezenet": _read_features,
    "vgg": _read_features,
}
_FAMILIES = tuple(_READERS)


def _download(name: str) -> dict[str, Tensor]:
    weights = import_torchvision().models.get_model_weights(name).DEFAULT
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True)
    except Exception as error:
        raise InvalidWeights(
            f"encoder = {name}: its weights could not be downloaded ({type(error).__name__}); "
            "give a file with encoder-weights"
        ) from None
    return state
