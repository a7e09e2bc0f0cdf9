"""What DP-SGD spends of a privacy budget, and the noise that keeps it within one.

Two data sets are adjacent if one lacks what the other has of one person (add or remove). Every epsilon is an upper
bound: what rounding, truncation and the arithmetic of a Fourier transform may hide is added to it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedmunkey.common.errors import InvalidSetting, brought_by
from fedmunkey.common.privacy.noisy_steps import NoisySteps

_WANTED = "what accounts for guarantee = certified"

with brought_by("certified", _WANTED):
    from scipy import optimize, special

# Steps on samples need these, nothing else does, and every program of a site would wait a second for their import.
if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

MOST_NOISE = 1e6


def epsilon_of(spent: Sequence[NoisySteps], delta: float, *, records: int = 1) -> float:
    """Return epsilon of all the steps together, for some records of one person that are added or removed together.

    Steps on all records (`sampling_rate` 1) have a closed form, which is exact. Steps on samples are composed as
    privacy loss distributions on a grid (Doroshenko et al. 2022, arXiv 2207.04380), those of a group of records, each
    sampled and clipped on its own, as a mixture of Gaussians (Ganesh 2024, arXiv 2401.10294). What is spent does not
    depend on the order of the steps, nor on how equal ones are split into entries: 0 if nothing was, `inf` if a step
    had no noise.

    The grid is coarse, so that one call takes about 0.1 s, or 1 s for a group. Against a grid that is 2.5 to 8 times
    finer, epsilon was up to 0.2 % too large; up to 1 % for rates of 0.0001 or a million steps, and up to 6 % for a
    group of which one record or none is sampled in nearly all of 100,000 steps.

    A `delta` below 2e-12, or below 2e-15 for each step, is lost in rounding, and losses whose root mean square is 200 a
    step do not fit. Both get the epsilon of the same steps on all records, which may be many times larger.

    Raises `ValueError` if `delta` is not in (0, 1) or `records` is below 1.
    """
    _check_delta(delta)
    if records < 1:
        raise ValueError(f"records must be at least 1, not {records}")
    steps: Counter[tuple[float, float]] = Counter()
    for part in spent:
        steps[part.sampling_rate, part.noise_multiplier] += part.steps
    merged = (NoisySteps(count, *rate_and_noise) for rate_and_noise, count in sorted(steps.items()) if count)
    return _epsilon(tuple(merged), delta, records)


def noise_for(epsilon: float, delta: float, *, steps: int, sampling_rate: float) -> float:
    """Return the smallest noise multiplier, to 1 in 10,000, with which the steps stay within (epsilon, delta).

    Rounded up, so that `epsilon_of` that many steps with this noise is at most `epsilon`. No noise at all is needed for
    an infinite `epsilon` or no steps. Raises `InvalidSetting` if not even `MOST_NOISE` is enough, and `ValueError` if a
    number is out of range.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon must be above 0, not {epsilon}")
    _check_delta(delta)
    if NoisySteps(steps, sampling_rate, 0.0).steps == 0 or epsilon == math.inf:
        return 0.0
    return _noise(epsilon, delta, steps, sampling_rate)


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ValueError(f"delta must be above 0 and below 1, not {delta}")


@lru_cache(maxsize=4096)
def _epsilon(spent: tuple[NoisySteps, ...], delta: float, records: int) -> float:
    if any(part.noise_multiplier == 0 for part in spent):
        return math.inf
    # Leaving records out at random never tells more than taking them all, because the divergence is convex.
    on_all = _gaussian_epsilon(records * _distance(spent), delta)
    if on_all in (0, math.inf) or all(part.sampling_rate == 1 for part in spent):
        return on_all
    points = _POINTS if records == 1 else _POINTS_OF_GROUP
    epsilon = _grid_epsilon(_as_group(spent, records), delta, points, on_all)
    return epsilon if records == 1 else max(epsilon, _epsilon(spent, delta, 1))


def _distance(spent: Sequence[NoisySteps]) -> float:
    """How many standard deviations one record moves the steps by, all together, if it takes part in all of them."""
    return math.hypot(*(math.sqrt(part.steps) / part.noise_multiplier for part in spent))


def _gaussian_epsilon(distance: float, delta: float) -> float:
    """Solve Balle and Wang 2018, theorem 8 (arXiv 1805.06530), for epsilon.

    With a = distance / 2 - epsilon / distance and b = a - distance, their delta is Phi(a) - exp(epsilon) Phi(b), where
    exp(epsilon) Phi(b) = exp(-a^2 / 2) erfcx(-b / sqrt 2) / 2: nothing overflows or cancels, however large epsilon is.
    """
    if distance in (0, math.inf):
        return distance

    def excess(a: float) -> float:
        density = math.exp(-a * a / 2) / 2
        upper = density * special.erfcx(-a / math.sqrt(2)) if a < 0 else special.ndtr(a)
        return float(upper - density * special.erfcx((distance - a) / math.sqrt(2)) - delta)

    if excess(distance / 2) <= 0:
        return 0.0
    a = optimize.brentq(excess, special.ndtri(delta), distance / 2, xtol=1e-12)
    return float(distance * (distance / 2 - a))


# The grid of losses: how far apart its points are, in root mean squares of the loss of one step, and how many of them
# the loss of one step may take at most. A group's take longer to find.
_SPACING = 0.1
_POINTS = 12_000
_POINTS_OF_GROUP = 10_000
# More steps than these take long to compose, unless the points are further apart.
_MANY_STEPS = 100_000
# Points further apart overflow, points closer together are equal in rounding.
_WIDEST_INTERVAL = 20.0
_NARROWEST_INTERVAL = 1e-12
# The share of delta that the tails beyond the grid may take.
_TAILS = 1e-4
# How wrong the transform may be, as a part of delta for each step: ten times the largest error that was found, with
# 1 to 1,000,000 steps, in tails that are empty but for such errors.
_ROUNDING = 1e-15
_ROUNDED_STEPS = 1_000

# No float holds the exponential of 710.
_LARGEST_EXPONENT = 700.0

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(64)


@dataclass(frozen=True)
class _GroupSteps(NoisySteps):
    """Steps as a group of records enters them: Gaussian noise around as many records as happen to be sampled."""

    records: int

    def losses(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log of how much likelier each sum, in clipping norms, is with the group than without it."""
        from scipy import stats

        sampled = np.arange(self.records + 1)
        exponents = (np.multiply.outer(sums, sampled) - sampled**2 / 2) / self.noise_multiplier**2
        logarithms = stats.binom.logpmf(sampled, self.records, self.sampling_rate)
        return np.asarray(special.logsumexp(exponents + logarithms, axis=-1))

    def mean_square(self) -> float:
        """Mean square of the loss of one step without the group, by Gauss-Hermite quadrature."""
        return float(self.losses(self.noise_multiplier * _NODES) ** 2 @ _WEIGHTS / _WEIGHTS.sum())

    def width(self, tail: float) -> float:
        """How far the losses of one step reach, but for about `tail` of them on either side."""
        from scipy import stats

        reach = -self.noise_multiplier * special.ndtri(tail)
        most = stats.binom.isf(tail, self.records, self.sampling_rate)
        lowest, highest = self.losses(np.array([-reach, most + reach]))
        return float(highest - lowest)

    def composed(self, interval: float, tail: float) -> PrivacyLossDistribution:
        """Losses of all steps on a grid; `tail` of them at most, twice, are counted as infinite."""
        with brought_by("certified", _WANTED):
            from dp_accounting.pld import privacy_loss_distribution as losses
        from scipy import stats

        log_tail = math.log(tail / self.steps)
        if self.records == 1:
            step = losses.from_gaussian_mechanism(
                self.noise_multiplier,
                sampling_prob=self.sampling_rate,
                value_discretization_interval=interval,
                log_mass_truncation_bound=log_tail,
            )
        else:
            # The library bisects until sums are 1e-6 apart, which is needlessly fine unless the noise is as small.
            noise = 0.02
            sampled = np.arange(self.records + 1)
            step = losses.from_mixture_gaussian_mechanism(
                noise,
                sampled * (noise / self.noise_multiplier),
                stats.binom.pmf(sampled, self.records, self.sampling_rate),
                value_discretization_interval=interval,
                log_mass_truncation_bound=log_tail,
            )
        return step.self_compose(self.steps, tail)


def _as_group(spent: Sequence[NoisySteps], records: int) -> list[_GroupSteps]:
    """Return the steps as a group enters them; those on all records are one step of the same distance."""
    on_all = [part for part in spent if part.sampling_rate == 1]
    groups = [
        _GroupSteps(part.steps, part.sampling_rate, part.noise_multiplier, records)
        for part in spent
        if part.sampling_rate < 1
    ]
    return [*groups, _GroupSteps(1, 1.0, 1 / (records * _distance(on_all)), 1)] if on_all else groups


def _interval(parts: Sequence[_GroupSteps], tail: float, points: int) -> float:
    """Choose how far apart the points are.

    A loss between two points is split so that its exponential keeps its mean (arXiv 2207.04380). Anywhere between
    them, that adds to the variance of the loss a sixth of the squared interval, and so to epsilon a share of about
    (interval / root mean square)^2 / 12.
    """
    steps = sum(part.steps for part in parts)
    root_mean_square = math.sqrt(math.fsum(part.steps * part.mean_square() for part in parts) / steps)
    spacing = _SPACING * math.sqrt(max(1.0, steps / _MANY_STEPS))
    return max(spacing * root_mean_square, max(part.width(tail / part.steps) for part in parts) / points)


def _grid_epsilon(parts: Sequence[_GroupSteps], delta: float, points: int, most: float) -> float:
    """Compose the steps on a grid of losses; `most` if rounding hides them or `delta`, or if `most` is less."""
    tail = _TAILS * delta / len(parts)
    with np.errstate(over="ignore", invalid="ignore"):
        interval = _interval(parts, tail, points)
    certain = delta - _ROUNDING * (_ROUNDED_STEPS + sum(part.steps for part in parts))
    if not _NARROWEST_INTERVAL < interval < _WIDEST_INTERVAL or certain < delta / 2:
        return most
    composed = reduce(lambda one, other: one.compose(other, tail), (part.composed(interval, tail) for part in parts))
    with np.errstate(over="ignore"):
        epsilon = float(composed.get_epsilon_for_delta(certain))
    return min(most, epsilon if epsilon < _LARGEST_EXPONENT else _large_epsilon(composed, certain))


def _large_epsilon(composed: PrivacyLossDistribution, delta: float) -> float:
    """Search for an epsilon whose exponential overflows in the library's own search."""

    def excess(epsilon: float) -> float:
        return math.log(max(composed.get_delta_for_epsilon(epsilon), _TAILS * delta) / delta)

    low, high = 0.0, _LARGEST_EXPONENT
    while excess(high) > 0:
        low, high = high, 2 * high
    return float(optimize.brentq(excess, low, high, xtol=1e-9)) + 1e-9


# How closely the logarithm of the noise is searched for, and by what factor it grows until it is enough.
_NOISE_PRECISION = 2e-5


@lru_cache(maxsize=1024)
def _noise(epsilon: float, delta: float, steps: int, sampling_rate: float) -> float:
    def spends(noise: float) -> float:
        return _epsilon((NoisySteps(steps, sampling_rate, noise),), delta, 1)

    noise = on_all = math.sqrt(steps) / _gaussian_distance(epsilon, delta)
    if sampling_rate < 1:
        # By the central limit theorem (Bu et al. 2020, arXiv 1911.11607), for low rates and many steps.
        noise = 1 / math.sqrt(math.log1p(1 / (on_all * sampling_rate) ** 2))
        noise = _search(lambda some: spends(some) / epsilon, noise, on_all)
    while noise <= MOST_NOISE:
        if spends(noise) <= epsilon:
            return noise
        noise *= 1 + _NOISE_PRECISION
    raise InvalidSetting(
        f"no noise up to {MOST_NOISE:g} keeps {steps} steps at sampling rate {sampling_rate:g} within epsilon"
        f" {epsilon:g} at delta {delta:g}: allow a larger epsilon or fewer steps"
    )


def _gaussian_distance(epsilon: float, delta: float) -> float:
    """Return the distance, in standard deviations, that `_gaussian_epsilon` gives this epsilon for."""

    def excess(distance: float) -> float:
        return _gaussian_epsilon(distance, delta) - epsilon

    high = 1.0
    while excess(high) <= 0:
        high *= 2
    while excess(high / 2) > 0:
        high /= 2
    return float(optimize.brentq(excess, high / 2, high, xtol=1e-12 * high))


def _search(share: Callable[[float], float], guess: float, enough: float) -> float:
    """Search for the noise that spends all of a budget and not more; `share` says what share a noise multiplier spends.

    It begins with `guess`; `enough` spends at most all of the budget.
    """

    def excess(log_noise: float) -> float:
        return math.log(max(share(math.exp(log_noise)), 1e-9))

    most = math.log(enough) + _NOISE_PRECISION
    low = high = min(math.log(guess), most)
    stride = 0.05
    while high < most and excess(high) > 0:
        low, high = high, min(high + stride, most)
        stride *= 2
    while excess(low) <= 0:
        low, high = low - stride, low
        stride *= 2
    return math.exp(optimize.brentq(excess, low, high, xtol=_NOISE_PRECISION))
