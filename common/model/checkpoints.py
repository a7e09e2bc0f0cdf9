"""Shared weights on disk: a safetensors file, and beside it a small JSON that says which model they belong to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

from fedmunkey.common.errors import InvalidWeights
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.private_files import replace_file

WEIGHTS_FORMAT = 1
_MODE = 0o666
"""Weights are for whomever the process's umask lets read them."""


@dataclass(frozen=True)
class Checkpoint:
    """Shared weights of a model of some shape, the name of its key encoder, and JSON-ready facts about them."""

    weights: Mapping[str, Tensor]
    shape: ModelShape
    encoder: str
    about: dict[str, Any]

    def model(self) -> Munkey:
        """Return a model with these weights."""
        model = Munkey(self.shape)
        model.load_state_dict(self.weights)
        return model.eval()


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `path` (.safetensors) and the JSON beside it; a reader finds the old files or the new ones, never half."""
    about = {
        "format": WEIGHTS_FORMAT,
        "model": checkpoint.shape.to_json(),
        "encoder": checkpoint.encoder,
        "about": checkpoint.about,
    }
    write_weights_file(path, about, {name: weight.cpu().numpy() for name, weight in checkpoint.weights.items()})


def read_checkpoint(path: Path, *, expected: ModelShape | None = None, encoder: str | None = None) -> Checkpoint:
    """Read what `write_checkpoint` wrote to a .safetensors file and the JSON beside it.

    Raises `InvalidWeights` if a file is missing or damaged, or the weights belong to another than the `expected` model
    or the `encoder` in use.
    """
    content, arrays = read_weights_file(path)
    if "model" not in content:
        raise InvalidWeights(
            f"{_beside(path)} does not describe a model that was trained; take the file written with it"
        )
    weights = {name: torch.from_numpy(array) for name, array in arrays.items()}
    try:
        shape = ModelShape.from_json(content["model"])
        found = Checkpoint(weights, shape, str(content["encoder"]), dict(content["about"]))
        with torch.device("meta"):
            own = {name: value.shape for name, value in Munkey(shape).state_dict().items()}
    except (KeyError, TypeError, ValueError, RuntimeError, ArithmeticError):
        raise InvalidWeights(f"{_beside(path)} does not describe a model; take the file written with it") from None
    wanted, other = expected or shape, encoder or found.encoder
    if wanted != shape:
        key, mine, theirs = next(
            (name, value, found.shape.to_json()[name])
            for name, value in wanted.to_json().items()
            if value != found.shape.to_json()[name]
        )
        raise InvalidWeights(f"{path} holds weights of another model: {key} is {theirs}, the settings ask for {mine}")
    if other != found.encoder:
        raise InvalidWeights(f"{path} was trained with the encoder {found.encoder}, this site's keys are from {other}")
    if own != {name: value.shape for name, value in weights.items()}:
        raise InvalidWeights(f"{path} does not hold the weights that {_beside(path)} describes; take both from one run")
    return found


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256, in hexadecimal, of weights: their names, shapes, kinds and bytes."""
    digested = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        array = np.ascontiguousarray(weight.detach().cpu().numpy())
        digested.update(f"{name} {array.shape} {array.dtype}".encode() + array.tobytes())
    return digested.hexdigest()


def write_weights_file(path: Path, about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays to a .safetensors file, and what they are to the JSON beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, save({name: np.asarray(array, order="C") for name, array in arrays.items()}), _MODE)
    replace_file(_beside(path), (json.dumps(about, indent=2, sort_keys=True) + "\n").encode(), _MODE)


def read_weights_file(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read what `write_weights_file` wrote; raises `InvalidWeights` if a file is missing or damaged."""
    try:
        content = json.loads(_beside(path).read_bytes())
        arrays = load(path.read_bytes())
    except OSError as error:
        raise InvalidWeights(f"{error.filename}: weights cannot be read; name a .safetensors with its .json") from None
    except (SafetensorError, ValueError):
        raise InvalidWeights(f"{path} or its .json is damaged; write it again") from None
    if not isinstance(content, dict):
        raise InvalidWeights(f"{_beside(path)} does not describe a model; take the file written with it")
    return content, arrays


def _beside(path: Path) -> Path:
    return path.with_suffix(".json")
