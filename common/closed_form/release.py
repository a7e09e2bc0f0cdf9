"""What a round under `exact` gives to every site: shared weights, and what each site needs to know what they do not."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmunkey.common.closed_form.feature_map import FeatureMap
from fedmunkey.common.closed_form.folds import FOLDS
from fedmunkey.common.closed_form.linear_answers import TEMPERATURES, WholeWeights, check_weights
from fedmunkey.common.closed_form.solving import RIDGES, Choice
from fedmunkey.common.errors import InvalidWeights
from fedmunkey.common.model.checkpoints import WEIGHTS_FORMAT, read_weights_file, write_weights_file

_WEIGHTS, _LEFT_OUT = "weights", "left-out"
_KIND = "closed form"


@dataclass(frozen=True)
class Release:
    """Shared weights that were solved for.

    Raises `InvalidWeights` if scores by them would not be exact.

    Attributes
    ----------
    weights : WholeWeights
        (size, classes), solved from all records.
    left_out : WholeWeights
        (folds, size, classes): those that have not seen one fold, of which each record can be asked.
    choice : Choice
        The ridge, and how the answers are calibrated.
    feature_map : FeatureMap
        What is read of a record.
    encoder : str
        Name of the key encoder.
    about : dict
        JSON-ready facts.
    """

    weights: WholeWeights
    left_out: WholeWeights
    choice: Choice
    feature_map: FeatureMap
    encoder: str
    about: dict[str, Any]

    def __post_init__(self) -> None:
        """Check the weights."""
        folds = self.left_out.shape[0] if self.left_out.ndim == 3 else 0
        expected = (folds, self.feature_map.size, self.classes if self.weights.ndim else 0)
        if self.weights.ndim != 2 or self.left_out.shape != expected or self.weights.shape != expected[1:] or not folds:
            raise InvalidWeights(
                f"weights of {self.weights.shape} and {self.left_out.shape} are not those of records with "
                f"{self.feature_map.size} numbers"
            )
        if self.weights.dtype != np.int32 or self.left_out.dtype != np.int32:
            raise InvalidWeights("weights are whole numbers of 32 bits")
        if self.choice.ridge not in RIDGES or self.choice.temperature not in TEMPERATURES:
            raise InvalidWeights(
                f"nobody chooses a ridge of {self.choice.ridge} at temperature {self.choice.temperature}"
            )
        check_weights(self.weights)
        check_weights(self.left_out)

    @classmethod
    def nothing(cls, feature_map: FeatureMap, classes: int, encoder: str) -> Release:
        """Return weights that know nothing, before the first round: all that a site answers is then its memory's."""
        weights = np.zeros((feature_map.size, classes), dtype=np.int32)
        left_out = np.zeros((FOLDS, feature_map.size, classes), dtype=np.int32)
        unknown = Choice(RIDGES[0], TEMPERATURES[len(TEMPERATURES) // 2], math.nan, math.nan)
        return cls(weights, left_out, unknown, feature_map, encoder, {})

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return int(self.weights.shape[-1])

    @property
    def folds(self) -> int:
        """How many folds were left out."""
        return len(self.left_out)

    def arrays(self) -> dict[str, NDArray[np.int32]]:
        """Return the weights by name."""
        return {_WEIGHTS: self.weights, _LEFT_OUT: self.left_out}

    def digest(self) -> str:
        """Return the SHA-256, in hexadecimal, of all that decides an answer."""
        digested = hashlib.sha256()
        for name, array in self.arrays().items():
            digested.update(f"{name} {array.shape}".encode() + np.ascontiguousarray(array).astype("<i4").tobytes())
        features, random = self.feature_map.features, self.feature_map.random
        choice = (self.choice.ridge, self.choice.temperature)
        digested.update(f"{features} {random} {choice} {self.encoder}".encode())
        return digested.hexdigest()

    @classmethod
    def of_arrays(
        cls,
        arrays: Mapping[str, NDArray[Any]],
        choice: Mapping[str, Any],
        feature_map: FeatureMap,
        encoder: str,
        about: dict[str, Any],
    ) -> Release:
        """Put a release together again; raises `InvalidWeights` if it is none."""
        try:
            chosen = Choice(**{name: float(choice[name]) for name in Choice.__dataclass_fields__})
            return cls(arrays[_WEIGHTS], arrays[_LEFT_OUT], chosen, feature_map, encoder, about)
        except (KeyError, TypeError, ValueError):
            raise InvalidWeights("a field of the released weights is missing or of another kind") from None


def write_release(path: Path, release: Release) -> None:
    """Write `path` (.safetensors) and the JSON beside it; a reader finds the old files or the new ones, never half."""
    about = {
        "format": WEIGHTS_FORMAT,
        "kind": _KIND,
        "encoder": release.encoder,
        "features": list(release.feature_map.features),
        "random-features": release.feature_map.random,
        "choice": asdict(release.choice),
        "digest": release.digest(),
        "about": release.about,
    }
    write_weights_file(path, about, release.arrays())


def is_release(path: Path) -> bool:
    """Return whether a weights file holds weights that were solved for; raises `InvalidWeights` if it is unreadable."""
    content, _ = read_weights_file(path)
    return content.get("kind") == _KIND


def read_release(path: Path, *, feature_map: FeatureMap | None = None, encoder: str | None = None) -> Release:
    """Read what `write_release` wrote.

    Raises `InvalidWeights` if a file is missing or damaged, or was made by other settings than some that are in use.
    """
    content, arrays = read_weights_file(path)
    if content.get("kind") != _KIND:
        raise InvalidWeights(f"{path} holds weights that were trained step by step, and exact ones are solved for")
    try:
        tokens, size = content["features"]
        read = FeatureMap((int(tokens), int(size)), int(content["random-features"]))
        made = str(content["encoder"])
        release = Release.of_arrays(arrays, content["choice"], read, made, dict(content["about"]))
    except (KeyError, TypeError, ValueError):
        raise InvalidWeights(
            f"the file beside {path} does not describe weights; take the one written with it"
        ) from None
    if release.digest() != content.get("digest"):
        raise InvalidWeights(f"{path} was changed since it was written; take the file of the last round again")
    if feature_map is not None and read != feature_map:
        raise InvalidWeights(
            f"{path} holds weights of another model: it reads {read}, the settings ask for {feature_map}"
        )
    if encoder is not None and made != encoder:
        raise InvalidWeights(f"{path} was made with the encoder {made}, this site's keys are from {encoder}")
    return release
