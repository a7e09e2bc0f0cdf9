"""Lower bounds on epsilon from guesses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedmunkey.simulations.attacks.attack import Scores
from fedmunkey.simulations.attacks.privacy_audit import chance_of, empirical_epsilon, most_provable


def randomised_response(epsilon: float, count: int, seed: int) -> Scores:
    """Return what each record's own coin says, which is epsilon-private and no better."""
    draws = np.random.default_rng(seed)
    truth = 1 / (1 + math.exp(-epsilon))
    return Scores((draws.random(count) < truth).astype(float), (draws.random(count) >= truth).astype(float))


def test_all_right_guesses_by_hand() -> None:
    # Without delta, r right of r have the chance (e^eps / (1 + e^eps))^r.
    assert chance_of(10, 10, 10, math.log(3), 0.0) == pytest.approx(0.75**10)
    assert chance_of(0, 10, 10, 1.0, 0.0) == 1
    # One right of one: delta makes up for the coin's other side, twice for each record.
    assert chance_of(1, 1, 1, 0.0, 0.1) == pytest.approx(0.5 + 2 * 0.1 * 0.5)


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 2.0])
def test_bound_holds_and_is_not_far_below(epsilon: float) -> None:
    bounds = [empirical_epsilon(randomised_response(epsilon, 1000, seed), 0.0) for seed in range(20)]

    # One of twenty may be above.
    assert sum(bound > epsilon for bound in bounds) <= 2
    assert np.mean(bounds) > 0.7 * epsilon - 1e-9


def test_cheat_that_tells_everything_proves_more_than_any_small_claim() -> None:
    found = empirical_epsilon(Scores(np.ones(200), np.zeros(500)), 1e-5)

    assert found > 3
    assert found == pytest.approx(most_provable(200, 1e-5), abs=1e-3)


def test_equal_scores_prove_nothing() -> None:
    equal = Scores(np.ones(300), np.ones(300))

    found = [empirical_epsilon(equal, 1e-5, seed=seed) for seed in range(20)]

    # They stand in an order that was drawn, and one drawn order of twenty may look like something.
    assert sum(bound > 0 for bound in found) <= 3
    assert max(found) < 0.5


def test_more_records_prove_more_and_more_tests_less() -> None:
    assert most_provable(50, 1e-5) < most_provable(500, 1e-5)
    assert most_provable(50, 1e-5, tests=10) < most_provable(50, 1e-5)
    assert most_provable(500, 1e-3) < most_provable(500, 1e-5)


def test_nobody_to_tell_apart_proves_nothing() -> None:
    assert empirical_epsilon(Scores.none(), 1e-5) == 0
