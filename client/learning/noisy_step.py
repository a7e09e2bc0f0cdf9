"""One step of DP-SGD on the shared weights (Abadi et al. 2016, algorithm 1), with noise or without.

A record's gradient is that of its own loss alone, with the image and without any memory: no neighbour is read, so that
a record moves the sum of gradients by at most the clipping norm. The number of a site's records is taken as known: a
deletion's answer tells it.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedmunkey.common.model.model import Munkey
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.noisy_steps import NoisySteps
from fedmunkey.common.settings.settings import Settings

_CHUNK = 256
"""Records whose gradients are in memory together."""

_LINEAR = {"linear.weight", "linear.bias"}
"""Shared weights whose gradients have a closed form."""


class Draws(Protocol):
    """Where samples and noise come from; `client.learning.secret_noise.SecretNoise` where a bound is claimed."""

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Return numbers above 0 and below 1, shape (count,)."""

    def normal(self, count: int) -> Tensor:
        """Return standard normal numbers in float32, shape (count,)."""


class SeededDraws:
    """Draws that follow from the seed of a run, for steps that claim no bound."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Return float64 numbers of at least 0 and below 1."""
        return torch.rand(count, generator=self._generator, dtype=torch.float64).numpy()

    def normal(self, count: int) -> Tensor:
        """Return standard normal numbers in float32."""
        return torch.randn(count, generator=self._generator)


def noisy_steps_of_round(recipe: Recipe) -> NoisySteps:
    """Return the steps of one round along clipped gradients: how many, on which samples, with how much noise.

    Under `certified` it is the noise that keeps all rounds within (epsilon, delta); raises `InvalidSetting` if none
    would be enough. Nobody else adds any.
    """
    settings = recipe.settings
    if not recipe.route.noisy:
        return NoisySteps(recipe.steps, settings.empirical_sampling_rate, 0.0)
    # The accountant takes seconds to import, and only certified training asks it.
    from fedmunkey.common.privacy.accounting import noise_for

    steps, rate = settings.num_rounds * recipe.steps, settings.sampling_rate
    noise = noise_for(settings.epsilon, settings.delta, steps=steps, sampling_rate=rate)
    return NoisySteps(recipe.steps, rate, noise)


@torch.no_grad()
def noisy_gradients(
    model: Munkey,
    weights: dict[str, Tensor],
    inputs: Tensor,
    labels: Tensor,
    *,
    spending: NoisySteps,
    settings: Settings,
    draws: Draws,
) -> tuple[dict[str, Tensor], float]:
    """Compute a noisy mean gradient over a Poisson sample of n records.

    Returns the sum of the clipped gradients plus noise, divided by the expected size of the sample, and the mean loss
    of the sample, which is not private and must not leave the site.

    Parameters
    ----------
    weights : dict
        Names and values of the shared weights that are trained.
    inputs, labels : Tensor
        (n, *input_shape) and (n,): all records of the site.
    spending : NoisySteps
        Sampling rate and noise multiplier.
    settings : Settings
        Clipping norm and label smoothing.
    draws : Draws
        Where the sample and the noise come from.
    """
    taken = torch.from_numpy(draws.uniform(len(labels)) < spending.sampling_rate)
    chosen, targets = inputs[taken], labels[taken]
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    losses = 0.0
    add_clipped = _add_clipped_linear if weights.keys() == _LINEAR else _add_clipped
    for part, wanted in zip(chosen.split(_CHUNK), targets.split(_CHUNK), strict=True):
        if len(part):
            losses += add_clipped(model, weights, part, wanted, settings, sums)
    expected = spending.sampling_rate * len(labels)
    scale = spending.noise_multiplier * settings.clipping_norm
    for total in sums.values():
        if scale:
            total.add_(draws.normal(total.numel()).view_as(total).to(total.device), alpha=scale)
        total.div_(expected)
    return sums, losses / max(len(targets), 1)


def _add_clipped(
    model: Munkey,
    weights: dict[str, Tensor],
    inputs: Tensor,
    labels: Tensor,
    settings: Settings,
    sums: dict[str, Tensor],
) -> float:
    """Add some records' clipped gradients to sums, in place; return the sum of their losses."""

    def loss_of(trained: dict[str, Tensor], one: Tensor, label: Tensor) -> Tensor:
        logits = _image_logits(model, trained, one[None])
        return F.cross_entropy(logits, label[None], label_smoothing=settings.label_smoothing)

    # The other ways to compute attention go record by record under vmap.
    with sdpa_kernel(SDPBackend.MATH):
        gradients, losses = vmap(grad_and_value(loss_of), in_dims=(None, 0, 0))(weights, inputs, labels)
    squares = [gradient.reshape(len(gradient), -1).square().sum(1) for gradient in gradients.values()]
    norms = torch.stack(squares).sum(0).sqrt()
    factors = _factors(norms, settings)
    for name, gradient in gradients.items():
        sums[name] += torch.tensordot(factors, gradient.nan_to_num(), dims=1)
    return float(losses.sum())


def _add_clipped_linear(
    model: Munkey,
    weights: dict[str, Tensor],
    inputs: Tensor,
    labels: Tensor,
    settings: Settings,
    sums: dict[str, Tensor],
) -> float:
    """Do as `_add_clipped` where only the linear function is trained, several times as fast.

    A record's gradient is then the outer product of its residual, probabilities minus targets, and what the linear
    function reads of it, and its norm the product of theirs (Goodfellow 2015, arXiv 1510.01799): none is written out.
    """
    seen: list[Tensor] = []
    hook = model.linear.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        logits = _image_logits(model, weights, inputs)
    finally:
        hook.remove()
    (read,) = seen
    logarithms = logits.log_softmax(1)
    targets = torch.full_like(logits, settings.label_smoothing / logits.shape[1])
    targets[torch.arange(len(labels)), labels] += 1 - settings.label_smoothing
    residuals = logarithms.exp() - targets
    # The bias reads a 1.
    norms = (residuals.square().sum(1) * (read.square().sum(1) + 1)).sqrt()
    factors = _factors(norms, settings)
    clipped = residuals.nan_to_num() * factors[:, None]
    sums["linear.weight"] += clipped.T @ read.nan_to_num()
    sums["linear.bias"] += clipped.sum(0)
    return float(-(targets * logarithms).sum())


def _image_logits(model: Munkey, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """Return (n, num_classes) logits of the image path alone, with some of the weights replaced."""
    nothing = inputs.new_zeros(len(inputs), 1, model.shape.exemplar_size, dtype=torch.float32)
    always = torch.ones(len(inputs), 1, dtype=torch.bool, device=inputs.device)
    logits: Tensor = functional_call(model, weights, (inputs, nothing), {"null_memory": always})
    return logits[:, 0]


def _factors(norms: Tensor, settings: Settings) -> Tensor:
    """Return what gradients of some norms are multiplied by, so that none is longer than the clipping norm."""
    factors = (settings.clipping_norm / norms.clamp_min(1e-12)).clamp_max(1.0)
    # No factor bounds a gradient that is infinite or not a number; its record counts for nothing.
    return torch.where(norms.isfinite(), factors, 0.0)
