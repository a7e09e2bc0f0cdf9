"""One local training epoch of a site against the same epoch of a transformer without a memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from fedmunkey.client.key_store import Tokens
from fedmunkey.client.key_store.on_disk.contents import SLACK
from fedmunkey.client.learning.bank import Bank
from fedmunkey.client.learning.training import train
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.model.neighbours import nearest
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import ImagePath, Settings
from fedmunkey.simulations.bench.figure import Bench, Figure, Group, Measured, at_most
from fedmunkey.simulations.bench.timing import Ratio, alternate, keep_freed_memory, ratio
from fedmunkey.simulations.federation.plain_models import PlainViT, train_plain
from fedmunkey.simulations.programs.machine import torch_threads

_TARGET = at_most(1.6)
_SMALL = Figure("epoch-8x8", "training epoch, 8x8 images in 2x2 patches, over the plain ViT's", "x", _TARGET)
_LARGE = Figure("epoch-28x28", "training epoch, 28x28 images in 4x4 patches, over the plain ViT's", "x", _TARGET)
_SIDES = {_SMALL: "1x8x8", _LARGE: "1x28x28"}


def _measure(bench: Bench) -> Iterator[Measured]:
    """Time epochs with the default settings."""
    keep_freed_memory()
    records, repetitions = (128, 2) if bench.quick else (512, 15)
    with bench.progress.counting("training epochs", repetitions * len(_SIDES)) as count:
        for figure, image_shape in _SIDES.items():
            settings = Settings(
                image_shape=image_shape, image_path=ImagePath.PATCHES, local_epochs=1, guarantee=Guarantee.EMPIRICAL
            )
            found = _compare(settings, records, repetitions, count)
            note = f"{records} records, batches of {settings.batch_size}, 1 thread, processor time"
            yield bench.result(figure, found.median, note, **found.to_json())


def _compare(settings: Settings, records: int, repetitions: int, count: Callable[[int], None]) -> Ratio:
    recipe = Recipe.of(settings)
    shape = ModelShape.of(recipe, (0, 0))
    torch.manual_seed(0)
    model, plain = Munkey(shape), PlainViT(shape)
    bank = _bank(records, settings, shape)
    draws = torch.Generator().manual_seed(0)
    actions: list[Callable[[], object]] = [
        lambda: train(model, bank, recipe, round_number=1, generator=draws),
        lambda: train_plain(plain, bank.inputs, bank.labels, settings, 1, draws),
    ]
    with torch_threads(1):
        return ratio(alternate(actions, repetitions, count, clock=time.process_time))


def _bank(records: int, settings: Settings, shape: ModelShape) -> Bank:
    """Return a bank of random images, whose neighbours are found by their pixels."""
    images = torch.randint(0, 256, (records, *shape.input_shape), dtype=torch.uint8)
    keys = torch.nn.functional.normalize(images.flatten(1).float() - 127.5, dim=1)
    return Bank(
        generation=0,
        entries=np.arange(records),
        labels=torch.randint(0, settings.num_classes, (records,)),
        inputs=images,
        tokens=Tokens.zeros(records, shape.exemplar_size),
        lists=nearest(keys, keys, Recipe.of(settings).neighbours + SLACK, own=torch.arange(records)),
        permanent=torch.zeros(records, dtype=torch.bool),
    )


GROUP = Group("training-epoch", (_SMALL, _LARGE), _measure)
