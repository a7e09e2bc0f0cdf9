"""Key encoders from torchvision's classification models, weights from a file or torchvision's own download."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from fedmunkey.common.errors import InvalidSetting, InvalidWeights
from fedmunkey.common.model.encoder_facts import EncoderFacts, torchvision_fingerprint
from fedmunkey.common.model.encoders.encoder import Encoder, Encoding
from fedmunkey.common.model.torchvision_import import import_torchvision

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
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


def torchvision_feature_shape(name: str, size: int) -> tuple[int, int]:
    """Return tokens and numbers in each without loading weights, by a pass over an image without data.

    Raises `InvalidSetting` if the model cannot take images of that size.
    """
    try:
        with torch.device("meta"):
            model = _build(name, size)
            pooled = _pooled(name, model, torch.empty(1, 3, size, size))
    except (AssertionError, RuntimeError):
        raise InvalidSetting(f"encoder-size = {size}: {name} takes no images of that size; set 0 or another") from None
    return int(pooled.shape[1]), int(pooled.shape[2])


class TorchvisionEncoder(Encoder):
    """A torchvision classification model without its classifier.

    Features are two tokens: mean and maximum over space of the last feature map, or class token and mean of the patch
    tokens of a vision transformer. The key is both features, or the class token, scaled to unit length. With `mirror`,
    features are means over an image and its mirror image, left to right: keys then do not depend on which side is
    which, and lie nearer to those of the same class. Images are resized (bilinear) to `size` pixels a side; `weights`
    is a file with a state dict (`.pth`, `.pt` or `.safetensors`), or empty for torchvision's own download.

    The order in which convolutions and matrix products add depends on the images in a batch and on the threads that
    share it. So each image is a batch of its own, on any device, and has one thread; a CPU's other threads take other
    images. Another processor, device or version of PyTorch may give other bits.
    """

    def __init__(self, name: str, *, weights: str, size: int, mirror: bool = False, device: torch.device) -> None:
        self.name = name
        self.size = size
        self.mirror = mirror
        self.device = device
        self.feature_shape = torchvision_feature_shape(name, size)
        model = _build(name, size)
        state = _read(Path(weights)) if weights else _download(name)
        _load(model, state, name, weights)
        self._weights = _digest(state)
        self._model = model.eval().requires_grad_(False).to(device)
        self._mean = torch.tensor(_MEAN, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(_STD, device=device).view(1, 3, 1, 1)
        self.key_size = self.feature_shape[1] * (1 if name.startswith("vit_") else 2)

    @property
    def facts(self) -> EncoderFacts:
        """Name, input size, whether images are mirrored as well, and a digest of the weights."""
        pooled = "class token and mean of the others" if self.name.startswith("vit_") else "mean and maximum over space"
        return EncoderFacts(
            name=self.name,
            weights=self._weights,
            preprocessing=f"bilinear with antialiasing, grey in all channels, mean {_numbers(_MEAN)}, deviation "
            f"{_numbers(_STD)}; {pooled}{', averaged with the mirror image' * self.mirror}",
            fingerprint=torchvision_fingerprint(self.name, self.size, self._weights, mirror=self.mirror),
            size=self.size,
            key_size=self.key_size,
            feature_shape=self.feature_shape,
        )

    def encode_batch(self, images: Tensor) -> Encoding:
        """Encode (N, 1 or 3, H, W) uint8 images; grey is repeated over the three channels."""
        workers = torch.get_num_threads() if self.device.type == "cpu" else 1
        encodings = _map_alone(self._encode_one, images, workers)
        return Encoding(torch.cat([e.keys for e in encodings]), torch.cat([e.features for e in encodings]))

    @torch.no_grad()
    def _encode_one(self, image: Tensor) -> Encoding:
        """Encode (1, 1 or 3, H, W)."""
        # The strides that an image comes with would choose among algorithms too.
        pixels = image.clone(memory_format=torch.contiguous_format).to(self.device).float() / 255
        pixels = functional.interpolate(pixels, size=(self.size, self.size), mode="bilinear", antialias=True)
        pixels = (pixels.expand(-1, 3, -1, -1) - self._mean) / self._std
        features = _pooled(self.name, self._model, pixels)
        if self.mirror:
            # Not one batch of two, whose sums could be in another order than those of each alone.
            features = (features + _pooled(self.name, self._model, pixels.flip(3))) / 2
        key = features[:, 0] if self.name.startswith("vit_") else features.flatten(1)
        return Encoding(functional.normalize(key, dim=1), features)


def _map_alone(function: Callable[[Tensor], Encoding], images: Tensor, workers: int) -> list[Encoding]:
    """Apply a function to each image alone, each in one of some threads that PyTorch does not share out further."""
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, images.split(1)))
    finally:
        # A thread's number is also that with which later ones begin.
        torch.set_num_threads(threads)


def _build(name: str, size: int) -> nn.Module:
    models = import_torchvision().models
    options: dict[str, Any] = {"weights": None}
    if name.startswith("vit_"):
        options["image_size"] = size
    model: nn.Module = models.get_model(name, **options)
    return model


def _pooled(name: str, model: Any, pixels: Tensor) -> Tensor:
    """Return (N, 2, size) feature tokens of normalised images."""
    family = next(family for family in _FAMILIES if name.startswith(family))
    return _READERS[family](model, pixels)


def _read_transformer(model: Any, pixels: Tensor) -> Tensor:
    tokens = model._process_input(pixels)
    tokens = model.encoder(torch.cat([model.class_token.expand(len(tokens), -1, -1), tokens], dim=1))
    return torch.stack([tokens[:, 0], tokens[:, 1:].mean(1)], dim=1)


def _read_resnet(model: Any, pixels: Tensor) -> Tensor:
    maps = model.maxpool(model.relu(model.bn1(model.conv1(pixels))))
    return _mean_and_maximum(model.layer4(model.layer3(model.layer2(model.layer1(maps)))))


def _read_features(model: Any, pixels: Tensor) -> Tensor:
    return _mean_and_maximum(model.features(pixels))


def _read_densenet(model: Any, pixels: Tensor) -> Tensor:
    return _mean_and_maximum(functional.relu(model.features(pixels)))


def _mean_and_maximum(maps: Tensor) -> Tensor:
    return torch.stack([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)


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


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InvalidSetting(f"encoder-weights = {path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InvalidWeights(f"encoder-weights = {path}: not a readable state dict ({type(error).__name__})") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InvalidWeights(f"encoder-weights = {path}: not a state dict of tensors; save model.state_dict()")
    return state


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


def _load(model: nn.Module, state: dict[str, Tensor], name: str, source: str) -> None:
    """Load a state dict of exactly this model, classifier included."""
    own = model.state_dict()
    wrong = sorted(own.keys() ^ state.keys()) or sorted(k for k in own if own[k].shape != state[k].shape)
    if wrong:
        raise InvalidWeights(
            f"encoder-weights = {source or 'torchvision'}: not weights of {name} (first difference: {wrong[0]}); "
            "name the encoder that they belong to"
        )
    model.load_state_dict(state)


def _digest(state: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(map(str, values))
