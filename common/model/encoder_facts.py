"""What fixes an encoder's keys and features: two sites with the same facts can compare what they have encoded."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fedmunkey.common.settings.settings import ONNX, PoolingName

_DIGITS = 16
_OF_MODEL = re.compile(rf"(\w+):(\d+):(mirror:)?(?:([a-z]+):)?([0-9a-f]{{{_DIGITS}}})")


@dataclass(frozen=True)
class EncoderFacts:
    """What an encoder is made of.

    Attributes
    ----------
    name : str
        As the setting `encoder` has it.
    weights : str
        SHA-256 of the weights' names and bytes, whatever file they come from, hexadecimal; empty where there are none.
    preprocessing : str
        What becomes of an image before and after the network, in one line for people and for comparing.
    fingerprint : str
        Name, size, mirror, pooling and weights in one short text; equal exactly if keys are comparable. Key stores
        keep it.
    size : int
        The setting `encoder-size` with the choice made; 0 where an encoder leaves none.
    key_size : int
        Numbers in a key.
    feature_shape : tuple of int
        Feature tokens of one image and numbers in each.
    """

    name: str
    weights: str
    preprocessing: str
    fingerprint: str
    size: int
    key_size: int
    feature_shape: tuple[int, int]


def model_fingerprint(name: str, size: int, weights: str, *, mirror: bool, pooling: str = "") -> str:
    """Return the fingerprint of an encoder whose weights have some digest; a pooling is named that was chosen."""
    pooled = f"{pooling}:" if pooling else ""
    return f"{name}:{size}:{'mirror:' * mirror}{pooled}{weights[:_DIGITS]}"


def fingerprint_fields(fingerprint: str) -> dict[str, str]:
    """Return what a fingerprint says, by the names of settings where there are such."""
    found = _OF_MODEL.fullmatch(fingerprint)
    if found is None:
        name, _, version = fingerprint.partition("-")
        return {"encoder": name, "encoder-version": version}
    name, size, mirror, pooling, weights = found.groups()
    return {
        "encoder": name,
        # The digest of a file in ONNX is that of its card as well, which says the size.
        **({} if name == ONNX else {"encoder-size": size}),
        "encoder-pooling": pooling or PoolingName.AUTO.value,
        "encoder-mirror": "true" if mirror else "false",
        "encoder-weights": weights,
    }
