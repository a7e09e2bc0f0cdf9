"""An attack on certified training, as Jagielski et al. 2020 (arXiv 2006.07709) and Nasr et al. 2021 (arXiv 2101.04535).

Many times the same site trains with and without a canary: a record as far from the others as there can be. Whoever sees
the weights guesses which it was. How often the guess is right bounds epsilon from below (arXiv 2006.07709, section 3),
and no such bound may lie above the epsilon that is claimed. The attacker knows all but the noise and the samples.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from fedmunkey.client.key_store import Tokens
from fedmunkey.client.learning.bank import Bank
from fedmunkey.client.learning.secret_noise import SecretNoise
from fedmunkey.client.learning.training import train
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.model.neighbours import NeighbourLists
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.accounting import noise_for
from fedmunkey.common.settings.settings import ImagePath, Settings

SHAPE = ModelShape(ImagePath.FROZEN, (1, 8), 0, num_classes=2, width=8, depth=0, heads=1, exemplar_size=2)
CANARY = 3
KEY = bytes(range(32))
EPSILON, DELTA, CLIP = 3.0, 0.1, 0.1
STEPS = 2
UNSURE = 0.025
"""How often, at most, each of the two rates may lie outside its confidence bound."""

CASES = [
    # The sampling rate, and shares of the canary in the weights, in clipping norms, above which it is seen.
    pytest.param(1.0, (1.3, 2.6), id="all-records"),
    pytest.param(0.5, (1.5, 1.8), id="samples"),
]


def settings_of(sampling_rate: float) -> Settings:
    # Steps are so short that the canary's gradient stays the same, as the attacker likes it best.
    return Settings().replace(
        guarantee="certified",
        num_classes=SHAPE.num_classes,
        epsilon=EPSILON,
        delta=DELTA,
        clipping_norm=CLIP,
        sampling_rate=sampling_rate,
        num_rounds=1,
        local_steps=STEPS,
        clipped_learning_rate=1e-3,
    )


def bank_of(rows: list[int]) -> Bank:
    """Return a bank of some of four records; the canary's image is the negative of the others'.

    What it adds to the weights is then at right angles to what they add, as their biases have the same gradients.
    """
    image = torch.tensor([[1.0, -1.0] * 4])
    images, count = torch.stack([-image, -image, -image, image]), len(rows)
    return Bank(
        0,
        np.arange(count),
        torch.tensor([0, 1, 0, 1])[rows],
        images[rows],
        Tokens.zeros(count, SHAPE.exemplar_size),
        NeighbourLists.empty(count, 4),
        torch.zeros(count, dtype=torch.bool),
    )


def sum_of_gradients(rows: list[int], settings: Settings, run: int) -> Tensor:
    """Train, and return what the weights tell of the sum of all steps' gradients."""
    # What it begins with is zero where it is trained.
    model = Munkey(SHAPE)
    secret = SecretNoise(KEY, "audit", settings.sampling_rate, len(rows), run)  # type: ignore[arg-type]
    train(model, bank_of(rows), Recipe.of(settings), round_number=1, generator=torch.Generator(), secret=secret)
    moved = torch.cat([model.linear.weight.flatten(), model.linear.bias]).detach()
    return -moved * settings.sampling_rate * len(rows) / settings.clipped_learning_rate


def shares(settings: Settings, runs: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the canary's share in the weights of each run with it, and of each without it, in clipping norms."""
    canary = sum_of_gradients([CANARY], settings.replace(epsilon=math.inf, sampling_rate=1.0), 0)
    others = [row for row in range(4) if row != CANARY]
    direction = canary / canary.norm() / CLIP

    def of(rows: list[int]) -> NDArray[np.float64]:
        return np.array([float(sum_of_gradients(rows, settings, run) @ direction) for run in range(runs)])

    return of([*others, CANARY]), of(others)


def epsilon_at_least(with_canary: NDArray[np.float64], without: NDArray[np.float64], threshold: float) -> float:
    """Return the epsilon that the guesses prove, with the confidence bounds of Clopper and Pearson (1934)."""
    runs, hits, false_alarms = len(without), int((with_canary > threshold).sum()), int((without > threshold).sum())
    lower = stats.beta.ppf(UNSURE, hits, runs - hits + 1)
    upper = stats.beta.ppf(1 - UNSURE, false_alarms + 1, runs - false_alarms)
    return math.log((lower - DELTA) / upper)


@pytest.mark.parametrize(("sampling_rate", "thresholds"), CASES)
def test_attack_proves_an_epsilon_near_the_claim_not_above(sampling_rate: float, thresholds: tuple[float, ...]) -> None:
    # As many as it takes to find out that there is half of the noise, too.
    found = shares(settings_of(sampling_rate), 700)

    assert 0.3 * EPSILON < max(epsilon_at_least(*found, threshold) for threshold in thresholds) <= EPSILON


@pytest.mark.parametrize("sampling_rate", [1.0, 0.5])
def test_attack_finds_out_a_tenth_of_the_noise(sampling_rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_little(*budget: float, **steps: float) -> float:
        return noise_for(*budget, **steps) / 10  # type: ignore[arg-type]

    monkeypatch.setattr("fedmunkey.common.privacy.accounting.noise_for", too_little)

    found = shares(settings_of(sampling_rate), 200)

    assert epsilon_at_least(*found, threshold=0.5) > EPSILON
