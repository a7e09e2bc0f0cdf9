"""Weights are ridge regression, left-out ones of the other folds; the middle ridge of those that do is taken."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedmunkey.common.closed_form.feature_map import SCALE, Numbers
from fedmunkey.common.closed_form.folds import FOLDS
from fedmunkey.common.closed_form.linear_answers import (
    TEMPERATURES,
    WEIGHT_BITS,
    check_weights,
    likelihoods,
    probabilities,
    scores,
    whole_weights,
)
from fedmunkey.common.closed_form.solving import (
    RIDGES,
    choose,
    left_out_scores,
    left_out_weights,
    shared_weights,
    tally,
)
from fedmunkey.common.closed_form.sums import Whole
from fedmunkey.common.errors import InvalidWeights
from tests.common.closed_form.conftest import CLASSES, SIZE, numbered, summed

COLUMNS = 1 + len(TEMPERATURES)


def regression(numbers: Numbers, labels: Whole, ridge: float) -> Numbers:
    """Return ridge regression of one-hot labels as a textbook has it: least squares with more rows."""
    rows = np.vstack([numbers / SCALE, math.sqrt(ridge) * np.eye(numbers.shape[1])])
    targets = np.vstack([np.eye(CLASSES)[labels], np.zeros((numbers.shape[1], CLASSES))])
    return np.asarray(np.linalg.lstsq(rows, targets, rcond=None)[0], dtype=np.float64)


@pytest.mark.parametrize("count", [1, 4, 60])
def test_weights_are_ridge_regression_and_left_out_ones_that_of_the_other_folds(count: int) -> None:
    numbers, labels, folds = numbered(count)
    sums = summed(numbers, labels, folds)

    left_out = left_out_weights(sums)

    assert left_out.shape == (len(RIDGES), FOLDS, SIZE, CLASSES)
    for place, ridge in enumerate(RIDGES):
        whole = shared_weights(sums, ridge) / 2**WEIGHT_BITS
        assert np.allclose(whole, regression(numbers, labels, ridge), atol=1e-4)
        for fold in range(FOLDS):
            others = folds != fold
            expected = regression(numbers[others], labels[others], ridge)
            assert np.allclose(left_out[place, fold] / 2**WEIGHT_BITS, expected, atol=1e-4)


def test_a_fold_does_not_move_the_weights_that_have_not_seen_it() -> None:
    numbers, labels, folds = numbered(60)
    kept = folds != 1

    whole = left_out_weights(summed(numbers, labels, folds))
    fewer = left_out_weights(summed(numbers[kept], labels[kept], folds[kept]))

    assert np.array_equal(whole[:, 1], fewer[:, 1])
    assert not np.array_equal(whole[:, 0], fewer[:, 0])


def test_solutions_of_equal_sums_have_the_same_bytes() -> None:
    numbers, labels, folds = numbered(60)
    turned = np.random.default_rng(1).permutation(60)

    one, other = summed(numbers, labels, folds), summed(numbers[turned], labels[turned], folds[turned])

    assert left_out_weights(one).tobytes() == left_out_weights(other).tobytes()
    assert shared_weights(one, 0.1).tobytes() == shared_weights(other, 0.1).tobytes()


# Scores and tallies.


@settings(max_examples=25)
@given(count=st.integers(1, 40), seed=st.integers(0, 99), start=st.integers(0, 39), sites=st.integers(1, 4))
def test_scores_and_tallies_are_the_same_whatever_is_asked_together(
    count: int, seed: int, start: int, sites: int
) -> None:
    numbers, labels, folds = numbered(count, seed=seed)
    left_out = left_out_weights(summed(*numbered(50)))
    whole = tally(left_out, numbers, labels, folds)

    parts = [tally(left_out, numbers[s::sites], labels[s::sites], folds[s::sites]) for s in range(sites)]

    assert np.array_equal(sum(parts), whole)
    row = start % count
    alone = scores(numbers[row : row + 1], left_out[3, 0])
    assert alone.tobytes() == scores(numbers, left_out[3, 0])[row : row + 1].tobytes()


def test_tally_counts_what_weights_without_the_fold_answer_rightly() -> None:
    numbers, labels, folds = numbered(40, seed=3)
    left_out = left_out_weights(summed(numbers, labels, folds))

    found = tally(left_out, numbers, labels, folds)

    assert found.shape == (len(RIDGES), COLUMNS)
    assert found.dtype == np.int64
    for place in (0, 9, len(RIDGES) - 1):
        scored = np.stack([numbers[r] @ left_out[place, folds[r]].astype(float) for r in range(40)])
        scored /= SCALE * 2**WEIGHT_BITS
        assert found[place, 0] == (scored.argmax(1) == labels).sum()
        for column, temperature in enumerate(TEMPERATURES, 1):
            exponents = np.exp(scored / temperature)
            lost = -np.log(exponents[np.arange(40), labels] / exponents.sum(1)).sum()
            assert found[place, column] / 2**20 == pytest.approx(lost, rel=1e-6)
    assert not tally(left_out, numbers[:0], labels[:0], folds[:0]).any()


def test_likelihood_of_a_class_that_is_never_answered_is_finite() -> None:
    scored = np.array([[1e9, 0.0], [0.0, 0.0]])

    found = likelihoods(scored, np.array([1, 0]))

    assert (found == found[0]).sum() == len(TEMPERATURES)
    assert found[0] / 2**20 == pytest.approx(2**10 + math.log(2), abs=1e-5)


def test_probabilities_are_a_softmax() -> None:
    scored = np.array([[0.0, 1.0, 0.5], [1e4, 0.0, 0.0]])

    found = probabilities(scored, 0.5)

    assert np.allclose(found.sum(1), 1)
    assert np.allclose(found[0], np.exp([0, 2, 1]) / np.exp([0, 2, 1]).sum())
    assert found[1].tolist() == [1, 0, 0]


def test_scores_of_the_largest_weights_that_are_taken_are_exact() -> None:
    weights = np.full((2**8, 1), 2**31 - 1, dtype=np.int32)
    weights[1::2] *= -1
    numbers = np.full((1, 2**8), SCALE)
    numbers[0, 0] -= 1

    check_weights(weights)

    assert scores(numbers, weights)[0, 0] * SCALE * 2**WEIGHT_BITS == -(2**31 - 1)


@pytest.mark.parametrize("fault", [math.nan, math.inf, -math.inf, 2.0**11, 2.0**12])
def test_weights_by_which_scores_would_not_be_exact_are_refused(fault: float) -> None:
    weights = np.zeros((4, 2))
    weights[1, 1] = fault

    with pytest.raises(InvalidWeights, match="weights are too large, or no numbers; a larger ridge makes them smaller"):
        whole_weights(weights)


def test_many_weights_that_are_too_large_together_are_refused() -> None:
    weights = np.full((2**9, 1), 2**30, dtype=np.int32)

    with pytest.raises(InvalidWeights, match="weights are too large"):
        check_weights(weights)


# Choosing the ridge.


def tallies(*right: int) -> NDArray[np.int64]:
    """Return tallies of some numbers of right answers, the last for all ridges from there on."""
    found = np.full((len(RIDGES), COLUMNS), 7 * 2**20, dtype=np.int64)
    found[:, 0] = [*right, *[right[-1]] * (len(RIDGES) - len(right))]
    found[:, 4] = 5 * 2**20
    return found


@pytest.mark.parametrize(
    ("right", "place"),
    [
        # Half a standard error of 8,000 of 10,000 is 20.
        ([7000, 7500, 8000, 7981, 7980, 7979], 3),
        ([7000, 7500, 8000, 7981, 7980, 7980, 7979], 4),
        ([7000, 7500, 8000, 7700, 7980, 7979], 4),
        ([8000, 7979], 0),
        ([8000, 7000, 7000, 7980, 7979], 3),
        ([8000], len(RIDGES) // 2),
        # All or none right leave nothing to chance.
        ([10_000, 10_000, 9999], 1),
        ([0], len(RIDGES) // 2),
    ],
)
def test_middle_ridge_within_half_a_standard_error_is_taken(right: list[int], place: int) -> None:
    found, choice = choose(tallies(*right), 10_000)

    assert found == place
    assert choice.ridge == RIDGES[place]
    assert choice.accuracy == tallies(*right)[place, 0] / 10_000
    assert (choice.temperature, choice.likelihood) == (TEMPERATURES[3], 0.0005)


@pytest.mark.parametrize(
    ("found", "records"),
    [
        (tallies(101), 100),
        (tallies(1, -1), 100),
        (tallies(0), 0),
        (tallies(5) - np.eye(len(RIDGES), COLUMNS, 2, dtype=np.int64) * 2**40, 100),
    ],
)
def test_tallies_of_other_records_are_refused(found: NDArray[np.int64], records: int) -> None:
    with pytest.raises(InvalidWeights, match=f"the tallies are not those of {records} records"):
        choose(found, records)


def test_left_out_scores_ask_each_record_of_the_weights_without_its_fold() -> None:
    numbers, labels, folds = numbered(30)
    by_fold = left_out_weights(summed(numbers, labels, folds))[5]

    found = left_out_scores(by_fold, numbers, folds)

    assert all(np.array_equal(found[row], scores(numbers[row : row + 1], by_fold[folds[row]])[0]) for row in range(30))
