"""Files with the weights of a pretrained image model: a state dict, read without running anything that is in it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fedmunkey.common.errors import InvalidSetting, InvalidWeights


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the state dict of a `.pth`, `.pt` or `.safetensors` file.

    Raises `InvalidSetting` where there is no such file, `InvalidWeights` where it holds anything else.
    """
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


def load_state(model: nn.Module, state: dict[str, Tensor], name: str, source: str) -> None:
    """Load a state dict of exactly this model, classifier included; another raises `InvalidWeights`.

    `name` and `source` are the model's, and that of its weights, for the message.
    """
    own = model.state_dict()
    wrong = sorted(own.keys() ^ state.keys()) or sorted(k for k in own if own[k].shape != state[k].shape)
    if wrong:
        raise InvalidWeights(
            f"encoder-weights = {source or 'torchvision'}: not weights of {name} (first difference: {wrong[0]}); "
            "name the encoder that they belong to"
        )
    model.load_state_dict(state)


def state_digest(state: dict[str, Tensor]) -> str:
    """Return the SHA-256 of names and values, hexadecimal, the same whatever kind of file they came from."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
