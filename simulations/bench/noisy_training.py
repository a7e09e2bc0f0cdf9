"""Local training with a bound on what it tells of a record, against the same steps without one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F

from fedmunkey.client.key_store import Tokens
from fedmunkey.client.learning.bank import Bank
from fedmunkey.client.learning.noisy_step import noisy_steps_of_round
from fedmunkey.client.learning.secret_noise import SecretNoise
from fedmunkey.client.learning.training import train
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.model.neighbours import NeighbourLists
from fedmunkey.common.model.recipe import FEW_STEPS, Recipe
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import ImagePath, Settings
from fedmunkey.simulations.bench.figure import Bench, Figure, Group, Measured, at_most
from fedmunkey.simulations.bench.timing import Ratio, alternate, keep_freed_memory, ratio
from fedmunkey.simulations.programs.machine import torch_threads

_TRAINING = Figure(
    "noisy-training-time",
    "local training under certified, frozen path, over the same steps without noise and clipping",
    "x",
    at_most(2.0),
)
_CALIBRATION = Figure("noise-calibration", "finding the noise that keeps all rounds within (epsilon, delta), once", "s")

_FEATURES = (2, 512)
_KEY = bytes(range(32))
_SAMPLING_RATE = 0.1


def _measure(bench: Bench) -> Iterator[Measured]:
    """Train on random features of two tokens of 512 numbers, with one thread."""
    records, repetitions = (100, 3) if bench.quick else (1_000, 40)
    noisy = Settings(guarantee=Guarantee.CERTIFIED, image_path=ImagePath.FROZEN, local_steps=FEW_STEPS)
    calibration = _calibrate(noisy)
    keep_freed_memory()
    with torch_threads(1), bench.progress.counting("noisy training", repetitions) as count:
        found = _compare(noisy, records, repetitions, count)
    note = f"{records:,} records, {FEW_STEPS} steps on all of them, 1 thread, processor time"
    yield bench.result(_TRAINING, found.median, note, **found.to_json())
    sampled = _calibrate(noisy.replace(sampling_rate=_SAMPLING_RATE))
    steps = f"{noisy.rounds * FEW_STEPS} steps, epsilon = {noisy.epsilon:g}, delta = {noisy.delta:g}"
    note = f"{steps}, sampling rate 1; {sampled:.2g} s at sampling rate {_SAMPLING_RATE:g}"
    yield bench.result(_CALIBRATION, calibration, note, sampled_seconds=sampled)


def _calibrate(settings: Settings) -> float:
    """Return the seconds that it takes to find the noise; later calls for the same settings look it up."""
    # What the accountant is made of takes seconds to import, once.
    import fedmunkey.common.privacy.accounting  # noqa: F401

    start = time.perf_counter()
    noisy_steps_of_round(Recipe.of(settings))
    return time.perf_counter() - start


def _compare(noisy: Settings, records: int, repetitions: int, count: Callable[[int], None]) -> Ratio:
    shape = ModelShape.of(Recipe.of(noisy), _FEATURES)
    torch.manual_seed(0)
    model, other = Munkey(shape), Munkey(shape)
    bank = _bank(records, shape)
    draws = torch.Generator().manual_seed(0)

    def secret() -> SecretNoise:
        return SecretNoise(_KEY, "training", 1)

    actions: list[Callable[[], object]] = [
        lambda: train(model, bank, Recipe.of(noisy), round_number=1, generator=draws, secret=secret()),
        lambda: _train_plainly(other, bank, noisy),
    ]
    return ratio(alternate(actions, repetitions, count, clock=time.process_time))


def _train_plainly(model: Munkey, bank: Bank, settings: Settings) -> None:
    """Take as many steps along the mean gradient of all records."""
    optimiser = torch.optim.AdamW(model.linear.parameters(), settings.learning_rate)
    for _ in range(FEW_STEPS):
        optimiser.zero_grad(set_to_none=True)
        logits = model.image_logits(bank.inputs)
        F.cross_entropy(logits, bank.labels, label_smoothing=settings.label_smoothing).backward()
        optimiser.step()


def _bank(records: int, shape: ModelShape) -> Bank:
    """Return a bank of random features; neither training reads a neighbour."""
    return Bank(
        generation=0,
        entries=np.arange(records),
        labels=torch.randint(0, shape.num_classes, (records,)),
        inputs=torch.randn(records, *shape.input_shape),
        tokens=Tokens.zeros(records, shape.exemplar_size),
        lists=NeighbourLists.empty(records, 1),
        permanent=torch.ones(records, dtype=torch.bool),
    )


GROUP = Group("noisy-training", (_TRAINING, _CALIBRATION), _measure)
