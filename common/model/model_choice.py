"""From settings to a model, in the same way at the coordinator and at every site."""

from __future__ import annotations

from pathlib import Path

import torch

from fedmunkey.common.errors import InvalidWeights
from fedmunkey.common.model.checkpoints import read_checkpoint
from fedmunkey.common.model.encoder_facts import EncoderFacts
from fedmunkey.common.model.encoders import Encoder, encoder_facts, feature_shape, make_encoder
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.model.randomness import derive_seed
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import DeviceName, Settings


def choose_shape(settings: Settings) -> ModelShape:
    """Return the shape of the shared weights, without loading any encoder's weights.

    Raises `InvalidSetting` if there is no such encoder, or a patch size does not divide the image.
    """
    weights, size = settings.encoder_weights, settings.encoder_size
    features = feature_shape(
        settings.encoder, settings.image_shape, weights=weights, size=size, pooling=settings.encoder_pooling
    )
    return ModelShape.of(Recipe.of(settings), features)


def choose_encoder(settings: Settings) -> Encoder:
    """Return the key encoder, with its weights.

    Raises `InvalidSetting` if there is no such encoder or weights file, `InvalidWeights` if they cannot be used.
    """
    return make_encoder(
        settings.encoder,
        settings.image_shape,
        weights=settings.encoder_weights,
        size=settings.encoder_size,
        pooling=settings.encoder_pooling,
        mirror=settings.encoder_mirror,
        device=choose_device(settings.device),
    )


def choose_facts(settings: Settings) -> EncoderFacts:
    """Return what the key encoder is made of, by its weights or its card; raises as `choose_encoder`."""
    return encoder_facts(
        settings.encoder,
        settings.image_shape,
        weights=settings.encoder_weights,
        size=settings.encoder_size,
        pooling=settings.encoder_pooling,
        mirror=settings.encoder_mirror,
    )


def choose_device(name: DeviceName) -> torch.device:
    """Return the device that a name stands for; `auto` takes CUDA where there is one."""
    if name is DeviceName.AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name.value)


def initial_model(shape: ModelShape, seed: int) -> Munkey:
    """Return a model with the weights from which a federation of this seed starts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "initial weights"))
        return Munkey(shape)


def first_model(settings: Settings, shape: ModelShape) -> Munkey:
    """Return the model from which training starts: `initial-weights`, or new weights of the seed.

    Raises `InvalidWeights` if the weights cannot be read, belong to another model, or were trained under a weaker
    guarantee, so that more of a record could be in them than this one allows.
    """
    if not settings.initial_weights:
        return initial_model(shape, settings.seed)
    path = Path(settings.initial_weights)
    checkpoint = read_checkpoint(path, expected=shape, encoder=settings.encoder)
    given = str(checkpoint.about.get("guarantee", Guarantee.EMPIRICAL))
    known = Guarantee(given) if given in set(Guarantee) else Guarantee.EMPIRICAL
    if Guarantee.weakest([known, settings.guarantee]) is not settings.guarantee:
        raise InvalidWeights(
            f"{path} was trained under guarantee = {known}, weaker than {settings.guarantee}; start from other "
            f"weights, or train with guarantee={known}"
        )
    return checkpoint.model()
