"""One step of DP-SGD: whose gradients it adds up, how long they may be, and what noise is on them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from fedmunkey.client.learning import noisy_step
from fedmunkey.client.learning.noisy_step import noisy_gradients, noisy_steps_of_round
from fedmunkey.client.learning.secret_noise import SecretNoise
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.model.recipe import FEW_STEPS, Recipe
from fedmunkey.common.privacy.accounting import epsilon_of
from fedmunkey.common.privacy.noisy_steps import NoisySteps
from fedmunkey.common.settings.settings import Settings
from tests.client.conftest import FROZEN, PATCHES, SHAPES, MakeModel, inputs_of

LINEAR = "linear."
SILENT = NoisySteps(1, 1.0, 0.0)
KEY = bytes(range(32))
UNLIKELY = 1e-3

Gradients = dict[str, Tensor]


def records(shape: ModelShape, count: int) -> tuple[Tensor, Tensor]:
    return inputs_of(shape, count), torch.arange(count) % shape.num_classes


def settings_with(**changes: object) -> Settings:
    return Settings().replace(guarantee="certified", num_classes=4, **changes)


def step(
    model: Munkey,
    inputs: Tensor,
    labels: Tensor,
    *,
    clip: float = 1e6,
    spending: NoisySteps = SILENT,
    secret: SecretNoise | None = None,
) -> tuple[Gradients, float]:
    weights = {name: weight.detach() for name, weight in model.named_parameters() if name.startswith(LINEAR)}
    draws, settings = secret or SecretNoise(KEY, "test"), settings_with(clipping_norm=clip)
    return noisy_gradients(model, weights, inputs, labels, spending=spending, settings=settings, secret=draws)


def sums(model: Munkey, inputs: Tensor, labels: Tensor, *, spending: NoisySteps = SILENT, **how: Any) -> Gradients:
    """Return the noisy sum of clipped gradients, which a step divides by the expected size of its sample."""
    means, _ = step(model, inputs, labels, spending=spending, **how)
    return {name: mean * spending.sampling_rate * len(labels) for name, mean in means.items()}


def flat(parts: Gradients) -> Tensor:
    return torch.cat([part.flatten() for part in parts.values()])


def own_gradients(model: Munkey, inputs: Tensor, labels: Tensor) -> list[Gradients]:
    """Return each record's gradient as autograd finds it, one record at a time."""
    found = []
    for row in range(len(labels)):
        model.zero_grad()
        logits = model(inputs[row : row + 1], torch.zeros(1, 1, 8), null_memory=torch.ones(1, 1, dtype=torch.bool))
        F.cross_entropy(logits[0], labels[row : row + 1], label_smoothing=settings_with().label_smoothing).backward()
        named = {name: weight for name, weight in model.named_parameters() if name.startswith(LINEAR)}
        found.append({n: torch.zeros_like(w) if w.grad is None else w.grad.clone() for n, w in named.items()})
    return found


# Gradients.


@pytest.mark.parametrize("shape", SHAPES)
def test_own_gradients_are_cut_where_they_are_long(shape: ModelShape, make_model: MakeModel) -> None:
    model, (inputs, labels) = make_model(shape), records(shape, 8)
    own = [flat(gradient) for gradient in own_gradients(model, inputs, labels)]
    clip = float(torch.stack([gradient.norm() for gradient in own]).median()) * 1.01

    clipped = [flat(sums(model, inputs[r : r + 1], labels[r : r + 1], clip=clip)) for r in range(8)]

    whole = flat(sums(model, inputs, labels))
    assert torch.allclose(whole, torch.stack(own).sum(0), atol=1e-4)
    assert min(gradient.norm() for gradient in own) > 0.05
    longer = [float(gradient.norm()) > clip for gradient in own]
    assert 0 < sum(longer) < 8
    for gradient, cut, long in zip(own, clipped, longer, strict=True):
        assert torch.allclose(cut, gradient * (clip / gradient.norm() if long else 1), rtol=1e-4, atol=1e-5)
        assert cut.norm() <= clip * (1 + 1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_record_moves_the_sum_by_its_clipped_gradient(shape: ModelShape, make_model: MakeModel) -> None:
    model, (inputs, labels) = make_model(shape), records(shape, 9)
    clip = 0.5

    whole = flat(sums(model, inputs, labels, clip=clip))
    for row in range(9):
        others = torch.arange(9) != row
        moved = whole - flat(sums(model, inputs[others], labels[others], clip=clip))

        alone = flat(sums(model, inputs[~others], labels[~others], clip=clip))
        assert torch.allclose(moved, alone, atol=1e-5)
        assert 0 < moved.norm() <= clip * (1 + 1e-4)


@pytest.mark.parametrize("fault", [math.inf, math.nan])
def test_record_without_a_finite_gradient_counts_for_nothing(fault: float, make_model: MakeModel) -> None:
    model = make_model(replace(FROZEN, depth=0))
    inputs, labels = records(FROZEN, 5)
    broken = inputs.clone()
    broken[2, 0, 0] = fault

    with_it = flat(sums(model, broken, labels, clip=0.5))

    rest = torch.arange(5) != 2
    without = flat(sums(model, inputs[rest], labels[rest], clip=0.5))
    assert torch.allclose(with_it, without, atol=1e-6)


def test_chunks_do_not_change_the_sum(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (inputs, labels) = make_model(FROZEN), records(FROZEN, 9)
    at_once = flat(sums(model, inputs, labels, clip=0.5))

    monkeypatch.setattr(noisy_step, "_CHUNK", 4)

    assert torch.allclose(flat(sums(model, inputs, labels, clip=0.5)), at_once, atol=1e-5)


def test_nothing_of_the_records_is_kept_in_the_model_or_the_sums(make_model: MakeModel) -> None:
    model, (inputs, labels) = make_model(FROZEN), records(FROZEN, 4)

    found = sums(model, inputs, labels)

    assert not any(total.requires_grad for total in found.values())
    assert all(weight.grad is None for weight in model.parameters())
    assert not any(part._forward_pre_hooks for part in model.modules())


def test_mean_is_over_the_expected_size_of_the_sample_and_not_over_its_size(make_model: MakeModel) -> None:
    model, (inputs, labels) = make_model(FROZEN), records(FROZEN, 1)
    inputs, labels = inputs.repeat(10, 1, 1), labels.repeat(10)
    spending = NoisySteps(1, 0.3, 0.0)

    (own,) = own_gradients(model, inputs[:1], labels[:1])
    steps = [step(model, inputs, labels, spending=spending, secret=SecretNoise(KEY, number)) for number in range(20)]

    taken = [float((means["linear.weight"] * 3 / own["linear.weight"]).median()) for means, _ in steps]
    assert taken == pytest.approx([round(count) for count in taken], abs=1e-3)
    assert len({round(count) for count in taken}) > 3


# Samples.


def taken_in(draws: int, rate: float, count: int = 40) -> Tensor:
    """Return (draws, count) which records a step has sampled: each is of a class of its own, whose bias tells."""
    shape = replace(FROZEN, num_classes=count + 1, depth=0)
    torch.manual_seed(0)
    model = Munkey(shape)
    inputs, labels = torch.zeros(count, *shape.input_shape), torch.arange(count)
    found = []
    for number in range(draws):
        secret = SecretNoise(KEY, "sample", number)
        total = sums(model, inputs, labels, spending=NoisySteps(1, rate, 0.0), secret=secret)
        bias = total["linear.bias"]
        found.append((bias[-1] - bias[:-1]) / (1 - settings_with().label_smoothing))
    return torch.stack(found).round().bool()


def test_sizes_of_samples_are_binomial() -> None:
    rate, draws = 0.3, 400

    sizes = taken_in(draws, rate).sum(1)

    observed = torch.bincount(sizes, minlength=41).numpy()
    groups = [slice(0, 9), *(slice(size, size + 1) for size in range(9, 16)), slice(16, 41)]
    expected = [draws * stats.binom.pmf(range(41)[group], 40, rate).sum() for group in groups]
    assert stats.chisquare([observed[group].sum() for group in groups], expected).pvalue > UNLIKELY


def test_records_are_sampled_alike_and_whatever_the_others_do() -> None:
    rate, draws = 0.3, 400

    taken = taken_in(draws, rate).double()

    deviation = math.sqrt(rate * (1 - rate) / draws)
    assert (taken.mean(0) - rate).abs().max() < 4.5 * deviation
    assert (taken.T.corrcoef() - torch.eye(40)).abs().max() < 4.5 / math.sqrt(draws)
    # Nor what the sample of the step before was.
    assert abs(float(torch.corrcoef(torch.stack([taken[:-1].flatten(), taken[1:].flatten()]))[0, 1])) < 0.03


def test_empty_sample_is_noise_only(make_model: MakeModel) -> None:
    model, (inputs, labels) = make_model(FROZEN), records(FROZEN, 2)

    means, loss = step(model, inputs, labels, spending=NoisySteps(1, 1e-9, 1.0))

    assert all(mean.isfinite().all() and mean.any() for mean in means.values())
    assert loss == 0


# Noise.


@pytest.mark.parametrize(("clip", "multiplier"), [(1.0, 2.0), (0.25, 0.5)])
def test_noise_is_gaussian_of_that_size(clip: float, multiplier: float, make_model: MakeModel) -> None:
    model, (inputs, labels) = make_model(PATCHES), records(PATCHES, 5)
    without = sums(model, inputs, labels, clip=clip)

    def noise(number: int) -> Tensor:
        secret, spending = SecretNoise(KEY, "noise", number), NoisySteps(1, 1.0, multiplier)
        noisy = sums(model, inputs, labels, clip=clip, spending=spending, secret=secret)
        return flat({name: noisy[name] - without[name] for name in noisy})

    numbers = torch.cat([noise(number) for number in range(20)]) / (multiplier * clip)

    assert stats.kstest(numbers.double().numpy(), "norm").pvalue > UNLIKELY
    assert float(numbers.std()) == pytest.approx(1, abs=4.5 / math.sqrt(2 * len(numbers)))


def test_every_weight_has_noise_of_its_own(make_model: MakeModel) -> None:
    model, (inputs, labels) = make_model(FROZEN), records(FROZEN, 5)
    noisy = sums(model, inputs, labels, spending=NoisySteps(1, 1.0, 100.0))

    numbers = flat(noisy) - flat(sums(model, inputs, labels))

    assert set(noisy) == {"linear.weight", "linear.bias"}
    assert len(set(numbers.round(decimals=3).tolist())) > 0.95 * len(numbers)


# What a round spends.


@pytest.mark.parametrize("rate", [1.0, 0.2])
@pytest.mark.parametrize("local_steps", [0, 5])
def test_all_rounds_together_spend_the_budget_and_no_more(rate: float, local_steps: int) -> None:
    settings = settings_with(epsilon=2.0, delta=1e-4, num_rounds=7, local_steps=local_steps, sampling_rate=rate)

    spending = noisy_steps_of_round(Recipe.of(settings))

    assert (spending.steps, spending.sampling_rate) == (local_steps or FEW_STEPS, rate)
    assert 1.99 < epsilon_of([spending] * 7, 1e-4) <= 2.0
    # An infinite budget needs no noise.
    assert noisy_steps_of_round(Recipe.of(settings.replace(epsilon=math.inf))).noise_multiplier == 0
