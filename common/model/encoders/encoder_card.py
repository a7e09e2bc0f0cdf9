"""The card of an encoder that comes as a file: what its model needs that the file itself does not say."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fedmunkey.common.errors import InvalidSetting, InvalidWeights
from fedmunkey.common.model.encoders.image_model import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Interpolation,
    Preprocessing,
)
from fedmunkey.common.model.encoders.pooling import Pooling

_Count = Annotated[int, Field(gt=0, le=1_000_000)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_split = BeforeValidator(lambda given: given.split(",") if isinstance(given, str) else given)


class EncoderCard(BaseModel):
    """What is written beside `model.onnx` in `model.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Digest of the model's file."""
    licence: str = Field(min_length=1, max_length=200)
    """Under which licence the model may be used: its SPDX name, or the owner's words."""
    size: Annotated[int, Field(gt=0, le=4096)]
    """Side in pixels of the images that it reads."""
    features: tuple[_Count, _Count]
    """Feature tokens of an image and numbers in each, once pooled: a coordinator needs no model to know them."""
    mean: Annotated[tuple[_Number, _Number, _Number], _split] = IMAGENET_MEAN
    """Taken off each channel, whose grey levels are 0 to 1."""
    std: Annotated[tuple[_Positive, _Positive, _Positive], _split] = IMAGENET_STD
    """By which what is left of each channel is divided."""
    interpolation: Interpolation = Interpolation.BILINEAR
    pooling: Pooling = Pooling.MEAN_AND_MAXIMUM
    output: str = ""
    """Which of the model's outputs is pooled; empty takes the first."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are prepared for the model."""
        return Preprocessing(self.size, self.mean, self.std, self.interpolation)

    @property
    def digest(self) -> str:
        """A short digest of all that decides about keys: the model, its preprocessing and its pooling."""
        said = self.model_dump(mode="json", exclude={"licence"})
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def of(cls, values: dict[str, Any], source: str) -> EncoderCard:
        """Return the card of some values; others raise `InvalidWeights` with their name and the source."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise InvalidWeights(f"{source}: {field} = {first['input']!r}: {first['msg']}") from None

    def to_toml(self) -> str:
        """Return the card as its file holds it."""
        lines = [f"{name} = {json.dumps(value)}" for name, value in self.model_dump(mode="json").items() if value != ""]
        return "\n".join(lines) + "\n"


def card_path(model: Path) -> Path:
    """Return where the card of a model's file lies: beside it, of the same name but for the ending."""
    return model.with_suffix(".toml")


def read_encoder_card(model: Path) -> EncoderCard:
    """Return the card beside a model's file, which itself need not be there.

    Raises `InvalidSetting` where there is none, and `InvalidWeights` where it is not a card.
    """
    path = card_path(model)
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise InvalidSetting(
            f"encoder-weights = {model}: its card {path} is missing; `munkey-client encoder-card` writes one"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidWeights(f"{path}: cannot be read ({error})") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidWeights(f"{path}: not a card of an encoder ({error})") from None
    return EncoderCard.of(values, str(path))
