"""One step of DP-SGD on the shared linear function (Abadi et al. 2016, algorithm 1).

A record's gradient is that of its own loss alone, with the image and without any memory: no neighbour is read, so that
a record moves the sum of gradients by at most the clipping norm. The number of a site's records is taken as known: a
deletion's answer tells it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from fedmunkey.client.learning.secret_noise import SecretNoise
from fedmunkey.common.model.model import Munkey
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.noisy_steps import NoisySteps
from fedmunkey.common.settings.settings import Settings

_CHUNK = 256
"""Records whose gradients are in memory together."""


def noisy_steps_of_round(recipe: Recipe) -> NoisySteps:
    """Return the noisy steps of one round: how many, on which samples, with how much noise.

    That keeps all rounds within (epsilon, delta); raises `InvalidSetting` if none would be enough.
    """
    settings = recipe.settings
    # The accountant takes seconds to import, and only certified training asks it.
    from fedmunkey.common.privacy.accounting import noise_for

    steps, rate = settings.rounds * recipe.steps, settings.sampling_rate
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
    secret: SecretNoise,
) -> tuple[dict[str, Tensor], float]:
    """Compute a noisy mean gradient over a Poisson sample of n records.

    Returns the sum of the clipped gradients plus noise, divided by the expected size of the sample, and the mean loss
    of the sample, which is not private and must not leave the site.

    Parameters
    ----------
    weights : dict
        Names and values of the linear function's weights.
    inputs, labels : Tensor
        (n, *input_shape) and (n,): all records of the site.
    spending : NoisySteps
        Sampling rate and noise multiplier.
    settings : Settings
        Clipping norm and label smoothing.
    secret : SecretNoise
        Where the sample and the noise come from.
    """
    taken = torch.from_numpy(secret.uniform(len(labels)) < spending.sampling_rate)
    chosen, targets = inputs[taken], labels[taken]
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    losses = 0.0
    for part, wanted in zip(chosen.split(_CHUNK), targets.split(_CHUNK), strict=True):
        if len(part):
            losses += _add_clipped(model, weights, part, wanted, settings, sums)
    expected = spending.sampling_rate * len(labels)
    scale = spending.noise_multiplier * settings.clipping_norm
    for total in sums.values():
        if scale:
            total.add_(secret.normal(total.numel()).view_as(total).to(total.device), alpha=scale)
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
    """Add some records' clipped gradients to sums, in place; return the sum of their losses.

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
