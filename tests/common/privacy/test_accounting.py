from __future__ import annotations

import itertools
import logging
import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting import pld, rdp
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, special, stats

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.privacy.accounting import MOST_NOISE, epsilon_of, noise_for
from fedmunkey.common.privacy.noisy_steps import NoisySteps

# How much larger than the truth an epsilon from the grid may be.
LOOSE = 1.002

few = settings(max_examples=4)
sampled_steps = st.builds(
    NoisySteps, st.integers(1, 1_000), st.floats(0.01, 0.9), st.floats(0.6, 20).map(lambda noise: round(noise, 3))
)
deltas = st.floats(-8, -3).map(lambda exponent: 10.0**exponent)


def gaussian_delta(distance: float, epsilon: float) -> float:
    """Delta of the Gaussian mechanism: by definition, the integral of (p - exp(epsilon) q)+ over all outputs."""

    def surplus(output: float) -> float:
        density = math.exp(-((output - distance) ** 2) / 2) / math.sqrt(2 * math.pi)
        return -density * math.expm1(epsilon - distance * (output - distance / 2))

    start = epsilon / distance + distance / 2
    stops = sorted({start, *(max(start, distance + step) for step in range(-12, 13, 2)), max(start, distance) + 14})
    return math.fsum(
        integrate.quad(surplus, low, high, epsabs=0, epsrel=1e-11)[0] for low, high in itertools.pairwise(stops)
    )


def simulated_delta(steps: NoisySteps, records: int, epsilon: float, *, draws: int = 30_000) -> tuple[float, float]:
    """Delta of the steps from samples of their privacy loss, the larger of both directions, and its standard error."""
    generator = np.random.default_rng(0)
    sampled = np.arange(records + 1)
    log_weights = stats.binom.logpmf(sampled, records, steps.sampling_rate)

    def losses(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        exponents = (sums[:, None] * sampled - sampled**2 / 2) / steps.noise_multiplier**2
        return np.asarray(special.logsumexp(exponents + log_weights, axis=1))

    removed, added = np.zeros(draws), np.zeros(draws)
    for _ in range(steps.steps):
        noise = steps.noise_multiplier * generator.standard_normal(draws)
        removed += losses(generator.binomial(records, steps.sampling_rate, draws) + noise)
        added -= losses(noise)
    means = []
    for direction in (removed, added):
        surplus = np.maximum(0, -np.expm1(np.minimum(0, epsilon - direction)))
        means.append((float(surplus.mean()), float(surplus.std() / math.sqrt(draws))))
    return max(means)


def test_nothing_spent_is_perfect_privacy() -> None:
    assert epsilon_of([], 1e-5) == 0
    assert epsilon_of([NoisySteps(0, 0.1, 0.0)], 1e-5, records=7) == 0


@pytest.mark.parametrize("rate", [0.01, 1.0])
def test_one_step_without_noise_is_no_privacy(rate: float) -> None:
    assert epsilon_of([NoisySteps(100, 0.1, 5.0), NoisySteps(1, rate, 0.0)], 1e-5) == math.inf


@pytest.mark.parametrize(
    ("steps", "rate", "noise", "fault"),
    [
        (-1, 0.5, 1.0, "steps"),
        (1, 0.0, 1.0, "sampling_rate"),
        (1, 1.01, 1.0, "sampling_rate"),
        (1, math.nan, 1.0, "sampling_rate"),
        (1, 0.5, -0.1, "noise_multiplier"),
        (1, 0.5, math.inf, "noise_multiplier"),
        (1, 0.5, math.nan, "noise_multiplier"),
    ],
)
def test_impossible_steps_are_refused(steps: int, rate: float, noise: float, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        NoisySteps(steps, rate, noise)


def test_impossible_delta_group_or_epsilon_is_refused() -> None:
    for delta in (0.0, 1.0, -1e-5, math.nan):
        with pytest.raises(ValueError, match="delta must be above 0 and below 1"):
            epsilon_of([], delta)
        with pytest.raises(ValueError, match="delta must be above 0 and below 1"):
            noise_for(1.0, delta, steps=1, sampling_rate=0.5)
    with pytest.raises(ValueError, match="records must be at least 1, not 0"):
        epsilon_of([], 1e-5, records=0)
    for epsilon in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="epsilon must be above 0"):
            noise_for(epsilon, 1e-5, steps=1, sampling_rate=0.5)


@pytest.mark.parametrize("delta", [0.3, 1e-5, 1e-12, 1e-40])
@pytest.mark.parametrize("distance", [0.01, 0.3, 1.0, 7.0, 60.0, 3_000.0])
def test_steps_on_all_records_have_the_epsilon_of_the_integral(distance: float, delta: float) -> None:
    epsilon = epsilon_of([NoisySteps(1, 1.0, 1 / distance)], delta)

    if epsilon == 0:
        assert gaussian_delta(distance, 0) <= delta
    else:
        # An epsilon with 12 digits fixes a delta with fewer of them, the farther out the tail.
        assert gaussian_delta(distance, epsilon) == pytest.approx(delta, rel=1e-6 * max(1, distance / 100))


def test_epsilon_of_much_too_little_noise_is_finite() -> None:
    # For small delta, epsilon is distance^2 / 2 + distance * z, with z the quantile of delta.
    distance = 1e8
    expected = distance**2 / 2 + distance * stats.norm.isf(1e-5)

    assert epsilon_of([NoisySteps(1, 1.0, 1 / distance)], 1e-5) == pytest.approx(expected, rel=1e-12)
    assert epsilon_of([NoisySteps(1, 0.5, 1e-100)], 1e-5) < math.inf


# From tensorflow_privacy/privacy/analysis/compute_dp_sgd_privacy_test.py of tensorflow/privacy (commit 2cd46db): what
# it expects of its PLD accountant, with a grid point every 1e-4, for one example or two examples of one user.
@pytest.mark.parametrize(
    ("steps", "delta", "records", "epsilon"),
    [
        (NoisySteps(2, 1.0, 0.7), 1e-5, 1, 10.1224946),
        (NoisySteps(2, 1.0, 0.35), 1e-5, 1, 24.7160779),
        (NoisySteps(5, 1.0, 1.0), 1e-6, 1, 12.595),
        (NoisySteps(5, 1.0, 1.0), 1e-6, 2, 30.579),
        (NoisySteps(120, 0.01, 0.7), 1e-5, 1, 2.4612381),
        (NoisySteps(120, 0.01, 0.35), 1e-5, 1, 18.6977407),
        (NoisySteps(782, 64 / 10_000, 1.0), 1e-6, 1, 1.199),
        (NoisySteps(782, 64 / 10_000, 1.0), 1e-6, 2, 2.532),
    ],
)
def test_epsilon_agrees_with_published_distributions(
    steps: NoisySteps, delta: float, records: int, epsilon: float
) -> None:
    assert epsilon_of([steps], delta, records=records) == pytest.approx(epsilon, rel=6e-4)


# Accountants of moments are looser, by a fifth to two thirds here.
@pytest.mark.parametrize(
    ("steps", "delta", "epsilon"),
    [
        # The same test, its RDP accountant.
        (NoisySteps(6_000, 150 / 60_000, 1.3), 1e-5, 0.7242234026109595),
        (NoisySteps(30_000, 100 / 100_000, 1.0), 1e-7, 1.4154988495444842),
        (NoisySteps(120, 0.01, 0.7), 1e-5, 3.2392676),
        (NoisySteps(782, 64 / 10_000, 1.0), 1e-6, 1.616),
        # tutorials/README.md of tensorflow/privacy, the first row of its table.
        (NoisySteps(60 * 60_000 // 256, 256 / 60_000, 1.12), 1e-5, 2.92),
        # Bu et al. 2020, "Deep learning with Gaussian differential privacy", figure 4: at epochs 20 and 70.
        (NoisySteps(20 * 60_000 // 256, 256 / 60_000, 1.3), 1e-5, 1.34),
        (NoisySteps(70 * 60_000 // 256, 256 / 60_000, 0.7), 1e-5, 8.68),
        # The example of Abadi et al. 2016, by their moments accountant.
        (NoisySteps(10_000, 0.01, 4.0), 1e-5, 1.26),
    ],
)
def test_epsilon_is_below_published_moments(steps: NoisySteps, delta: float, epsilon: float) -> None:
    assert 0.6 * epsilon < epsilon_of([steps], delta) < epsilon


@pytest.mark.parametrize(
    "steps", [NoisySteps(50, 0.3, 3.0), NoisySteps(1_000, 0.01, 0.8), NoisySteps(20_000, 0.001, 2.0)], ids=str
)
def test_epsilon_is_below_that_of_renyi_divergences(steps: NoisySteps, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="absl")
    divergences = rdp.RdpAccountant()
    step = dp_accounting.GaussianDpEvent(steps.noise_multiplier)
    divergences.compose(dp_accounting.PoissonSampledDpEvent(steps.sampling_rate, step), steps.steps)

    assert 0.7 * divergences.get_epsilon(1e-6) < epsilon_of([steps], 1e-6) < divergences.get_epsilon(1e-6)


def test_epsilon_is_between_that_of_a_grid_rounded_down_and_slightly_more() -> None:
    steps = NoisySteps(20, 0.3, 3.0)
    rounded_down = pld.privacy_loss_distribution.from_gaussian_mechanism(
        steps.noise_multiplier,
        sampling_prob=steps.sampling_rate,
        value_discretization_interval=1e-4,
        pessimistic_estimate=False,
        use_connect_dots=False,
    ).self_compose(steps.steps)
    least = rounded_down.get_epsilon_for_delta(1e-5)

    assert least < epsilon_of([steps], 1e-5) < least + steps.steps * 1e-4 + (LOOSE - 1) * least


@pytest.mark.parametrize(
    ("steps", "records"), [(NoisySteps(30, 0.1, 1.0), 1), (NoisySteps(20, 0.1, 1.5), 3), (NoisySteps(5, 0.5, 8.0), 6)]
)
def test_epsilon_agrees_with_simulated_losses(steps: NoisySteps, records: int) -> None:
    delta = 0.01
    simulated, error = simulated_delta(steps, records, epsilon_of([steps], delta, records=records))

    assert simulated == pytest.approx(delta, abs=4 * error + 0.01 * delta)


@few
@given(steps=sampled_steps, delta=deltas)
def test_epsilon_grows_with_all_that_weakens_privacy(steps: NoisySteps, delta: float) -> None:
    count, rate, noise = steps.steps, steps.sampling_rate, steps.noise_multiplier
    epsilon = epsilon_of([steps], delta)

    assert epsilon <= LOOSE * epsilon_of([NoisySteps(count + max(1, count // 10), rate, noise)], delta)
    assert epsilon <= LOOSE * epsilon_of([NoisySteps(count, rate * 1.1, noise)], delta)
    assert epsilon <= LOOSE * epsilon_of([NoisySteps(count, rate, noise / 1.1)], delta)
    assert epsilon <= LOOSE * epsilon_of([steps], delta / 2)
    assert epsilon <= epsilon_of([steps], delta, records=2)
    assert epsilon <= LOOSE * epsilon_of([steps, NoisySteps(1, 1.0, 20.0)], delta)


@given(
    count=st.integers(1, 10**6), noise=st.floats(1e-3, 1e3), delta=st.floats(1e-12, 0.5), records=st.integers(1, 100)
)
def test_epsilon_on_all_records_grows_with_all_that_weakens_privacy(
    count: int, noise: float, delta: float, records: int
) -> None:
    def epsilon(count: int, noise: float, delta: float, records: int) -> float:
        return epsilon_of([NoisySteps(count, 1.0, noise)], delta, records=records)

    least = epsilon(count, noise, delta, records)
    assert least <= epsilon(count + 1, noise, delta, records) * (1 + 1e-9)
    assert least <= epsilon(count, noise / 1.001, delta, records)
    assert least <= epsilon(count, noise, delta / 1.001, records)
    assert least <= epsilon(count, noise, delta, records + 1)


@given(count=st.integers(1, 1_000), noise=st.floats(0.1, 100), records=st.integers(1, 100))
def test_group_on_all_records_is_one_record_with_less_noise(count: int, noise: float, records: int) -> None:
    group = epsilon_of([NoisySteps(count, 1.0, noise)], 1e-5, records=records)

    assert group == pytest.approx(epsilon_of([NoisySteps(count, 1.0, noise / records)], 1e-5), rel=1e-9)


@pytest.mark.parametrize("records", [1, 4])
def test_sampling_nearly_all_records_is_nearly_the_same_as_all(records: int) -> None:
    on_all = epsilon_of([NoisySteps(40, 1.0, 6.0)], 1e-5, records=records)
    nearly = epsilon_of([NoisySteps(40, 1 - 1e-6, 6.0)], 1e-5, records=records)

    assert on_all / LOOSE < nearly <= on_all


@few
@given(steps=sampled_steps, delta=deltas, records=st.integers(1, 5))
def test_sampling_never_weakens_privacy(steps: NoisySteps, delta: float, records: int) -> None:
    on_all = NoisySteps(steps.steps, 1.0, steps.noise_multiplier)

    assert epsilon_of([steps], delta, records=records) <= epsilon_of([on_all], delta, records=records)


def test_how_steps_are_split_and_ordered_does_not_matter() -> None:
    whole = [NoisySteps(300, 0.05, 1.5), NoisySteps(20, 1.0, 30.0), NoisySteps(10, 0.2, 4.0)]
    split = [NoisySteps(10, 0.2, 4.0), *[NoisySteps(100, 0.05, 1.5), NoisySteps(10, 1.0, 30.0)] * 2, whole[0]]
    split[-1] = NoisySteps(100, 0.05, 1.5)

    assert epsilon_of(split, 1e-5) == epsilon_of(whole, 1e-5)
    assert epsilon_of(split, 1e-5, records=3) == epsilon_of(whole, 1e-5, records=3)


def test_steps_of_nearly_equal_noise_compose_like_equal_ones() -> None:
    together = epsilon_of([NoisySteps(300, 0.05, 1.5)], 1e-5)
    apart = epsilon_of([NoisySteps(100, 0.05, 1.5 * (1 + step * 1e-9)) for step in range(3)], 1e-5)

    assert apart == pytest.approx(together, rel=1e-3)


def test_sampled_and_unsampled_steps_compose_like_unsampled_ones() -> None:
    # At a rate of nearly 1 the closed form is known for a list that only the grid can compose.
    mixed = epsilon_of([NoisySteps(30, 1 - 1e-7, 6.0), NoisySteps(10, 1.0, 5.0)], 1e-5, records=2)
    known = epsilon_of([NoisySteps(30, 1.0, 6.0), NoisySteps(10, 1.0, 5.0)], 1e-5, records=2)

    assert known / LOOSE < mixed <= known


@few
@given(steps=sampled_steps, records=st.integers(2, 5))
def test_group_epsilon_is_below_the_general_bound(steps: NoisySteps, records: int) -> None:
    # Vadhan 2017, "The complexity of differential privacy", lemma 2.2.
    delta = 1e-9
    one = epsilon_of([steps], delta)
    assume(0 < records * one < 15)
    group_delta = delta * math.expm1(records * one) / math.expm1(one)

    assert epsilon_of([steps], group_delta, records=records) <= LOOSE * records * one


def test_group_of_a_hundred_records_has_an_epsilon() -> None:
    steps = NoisySteps(100, 0.02, 4.0)
    epsilons = [epsilon_of([steps], 1e-5, records=records) for records in (1, 2, 10, 100)]

    assert epsilons == sorted(epsilons)
    assert epsilons[-1] < math.inf


@pytest.mark.parametrize("delta", [1e-9, 1e-11, 1e-12, 1e-13, 1e-14])
def test_rounding_never_makes_epsilon_smaller(delta: float) -> None:
    # At a rate of nearly 1 the truth is known; the transform alone would fall short of it at 1e-13.
    truth = epsilon_of([NoisySteps(10_000, 1.0, 100.0)], delta)

    assert epsilon_of([NoisySteps(10_000, 1 - 1e-12, 100.0)], delta) >= truth * (1 - 1e-9)


def test_epsilon_is_found_where_its_exponential_is_none() -> None:
    epsilons = [epsilon_of([NoisySteps(steps, 0.5, 0.8)], 1e-5) for steps in range(2_300, 2_700, 80)]

    assert epsilons == sorted(epsilons)
    assert epsilons[0] < 700 < 750 < epsilons[-1]
    assert max(np.diff(epsilons)) < 1.1 * min(np.diff(epsilons))


def test_delta_below_rounding_gets_a_bound_all_the_same() -> None:
    steps = NoisySteps(1_000, 0.01, 1.0)

    assert epsilon_of([steps], 1e-11) < 4
    assert epsilon_of([steps], 1e-14) == epsilon_of([NoisySteps(1_000, 1.0, 1.0)], 1e-14)


def test_no_noise_is_needed_where_there_is_nothing_to_hide() -> None:
    assert noise_for(math.inf, 1e-5, steps=10, sampling_rate=0.1) == 0
    assert noise_for(1.0, 1e-5, steps=0, sampling_rate=0.1) == 0


@pytest.mark.parametrize(
    ("epsilon", "delta", "steps", "rate"),
    [
        (1.0, 1e-5, 1, 1.0),
        (1e-3, 1e-9, 1_000, 1.0),
        (500.0, 1e-5, 10, 1.0),
        (1.0, 1e-5, 10_000, 0.01),
        (8.0, 1e-5, 1_000, 0.01),
        (0.1, 1e-6, 2_000, 0.05),
        (3.0, 1e-5, 300, 0.5),
    ],
)
def test_noise_is_the_least_that_stays_within_epsilon(epsilon: float, delta: float, steps: int, rate: float) -> None:
    noise = noise_for(epsilon, delta, steps=steps, sampling_rate=rate)

    assert epsilon_of([NoisySteps(steps, rate, noise)], delta) <= epsilon
    assert epsilon_of([NoisySteps(steps, rate, noise / (1 + 1e-4))], delta) > epsilon


@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_noise_beyond_the_limit_is_refused_in_one_line(rate: float) -> None:
    with pytest.raises(InvalidSetting, match="within epsilon 1e-09 at delta 1e-12") as caught:
        noise_for(1e-9, 1e-12, steps=10, sampling_rate=rate)

    assert f"{MOST_NOISE:g}" in str(caught.value)
    assert "\n" not in str(caught.value)
