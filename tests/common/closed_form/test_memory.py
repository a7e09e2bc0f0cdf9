"""A hospital's memory is ridge regression of what the federation does not know, chosen by leaving each record out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmunkey.common.closed_form import memory
from fedmunkey.common.closed_form.feature_map import CONSTANT, SCALE, Numbers
from fedmunkey.common.closed_form.linear_answers import TEMPERATURES, WEIGHT_BITS, scores
from fedmunkey.common.closed_form.memory import Kernel, solve_memory
from fedmunkey.common.closed_form.solving import left_out_scores, left_out_weights
from fedmunkey.common.closed_form.sums import Whole
from tests.common.closed_form.conftest import CLASSES, numbered, summed

BY_FOLD = left_out_weights(summed(*numbered(80, seed=9)))[4]
TEMPERATURE = TEMPERATURES[2]


def bank_of(count: int, seed: int = 0, *, only: int | None = None) -> tuple[Numbers, Whole, Numbers]:
    """Return a bank's numbers, classes and left-out scores, of a federation that was solved without it."""
    numbers, labels, folds = numbered(count, seed=seed)
    if only is not None:
        labels[:] = only
    else:
        # The hospital's classes look otherwise than those of the federation.
        labels = (labels + 1) % CLASSES
    return numbers, labels, left_out_scores(BY_FOLD, numbers, folds)


def residuals_of(labels: Whole, left_out: Numbers) -> Numbers:
    found: Numbers = np.rint((np.eye(CLASSES)[labels] - left_out) * SCALE) / SCALE
    return found


def read_by(kernel: Kernel, numbers: Numbers) -> Numbers:
    return numbers / SCALE if kernel is Kernel.LINEAR else np.full((len(numbers), 1), CONSTANT / SCALE)


@pytest.mark.parametrize("count", [3, 5, 6, 7, 40])
@pytest.mark.parametrize("kernel", [Kernel.LINEAR, Kernel.CONSTANT])
def test_primal_and_dual_are_the_textbooks_and_left_out_residuals_those_of_refits(count: int, kernel: Kernel) -> None:
    numbers, labels, left_out = bank_of(count)
    residuals, read = residuals_of(labels, left_out), read_by(kernel, numbers)
    gram = read @ read.T

    solutions = memory._solutions(read * SCALE, residuals)

    assert len(solutions) == len(memory._STRENGTHS)
    for strength, (solved, tokens, apart) in zip(memory._STRENGTHS, solutions, strict=True):
        assert np.allclose(tokens, np.linalg.solve(gram + strength * np.eye(count), residuals), atol=1e-7)
        assert np.allclose(solved, read.T @ tokens, atol=1e-9)
        for row in range(count):
            others = np.arange(count) != row
            refit = np.linalg.solve(
                read[others].T @ read[others] + strength * np.eye(read.shape[1]), read[others].T @ residuals[others]
            )
            assert np.allclose(apart[row], residuals[row] - read[row] @ refit, atol=1e-7)


def test_kernel_and_strength_are_those_of_the_least_leave_one_out_error() -> None:
    numbers, labels, left_out = bank_of(40)
    residuals = residuals_of(labels, left_out)
    errors = {
        (kernel, strength): float((apart**2).mean())
        for kernel in (Kernel.CONSTANT, Kernel.LINEAR)
        for strength, (_, _, apart) in zip(
            memory._STRENGTHS, memory._solutions(read_by(kernel, numbers) * SCALE, residuals), strict=True
        )
    }
    kernel, strength = min(errors, key=lambda pair: errors[pair])

    found = solve_memory(numbers, labels, left_out, TEMPERATURE)

    assert (found.kernel, kernel) == (Kernel.LINEAR, Kernel.LINEAR)
    read = numbers / SCALE
    tokens = np.linalg.solve(read @ read.T + strength * np.eye(40), residuals)
    assert np.allclose(found.tokens, tokens, atol=1e-7)
    assert np.allclose(found.weights / 2**WEIGHT_BITS, read.T @ tokens, atol=1e-5)
    assert errors[kernel, strength] < float((residuals**2).mean())
    asked = numbered(10, seed=4)[0]
    expected = (asked / SCALE) @ read.T @ tokens
    assert np.allclose(found.add(asked, np.zeros((10, CLASSES))), expected, atol=1e-4)


def test_bank_of_one_class_has_a_memory_of_its_case_mix() -> None:
    numbers, labels, left_out = bank_of(30, only=1)

    found = solve_memory(numbers, labels, left_out, TEMPERATURE)

    assert found.kernel is not Kernel.NONE
    answered = scores(numbers, BY_FOLD[0]), found.add(numbers, scores(numbers, BY_FOLD[0]))
    assert (answered[1].argmax(1) == 1).sum() > (answered[0].argmax(1) == 1).sum()
    assert (answered[1].argmax(1) == 1).mean() > 0.9


def test_memory_of_a_case_mix_reads_the_constant_only() -> None:
    # What the federation does not know has nothing to do with any number.
    draw = np.random.default_rng(0)
    numbers, labels = numbered(300)[0], np.zeros(300, dtype=np.int64)
    left_out = np.eye(CLASSES)[labels] - np.array([0.2, -0.1, -0.1]) + draw.normal(0, 0.05, (300, CLASSES))

    found = solve_memory(numbers, labels, left_out, TEMPERATURE)

    assert found.kernel is Kernel.CONSTANT
    assert not found.weights[:-1].any()
    assert np.allclose(found.add(numbers, left_out) - left_out, [0.2, -0.1, -0.1], atol=0.02)


def test_federation_that_knows_everything_leaves_nothing_to_remember() -> None:
    numbers, labels, _ = numbered(30)

    found = solve_memory(numbers, labels, np.eye(CLASSES)[labels], TEMPERATURE)

    assert found.kernel is Kernel.NONE
    assert not found.weights.any()
    assert not found.tokens.any()


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_records_to_leave_one_out_are_no_memory(count: int) -> None:
    numbers, labels, left_out = bank_of(count)

    found = solve_memory(numbers, labels, left_out, TEMPERATURE)

    assert (found.kernel, found.temperature) == (Kernel.NONE, TEMPERATURE)
    assert found.tokens.shape == (count, CLASSES)
    asked = numbered(5, seed=2)[0]
    assert np.array_equal(found.add(asked, np.ones((5, CLASSES))), np.ones((5, CLASSES)))


def test_two_records_have_a_memory() -> None:
    found = solve_memory(*bank_of(2, only=0), TEMPERATURE)

    assert found.tokens.shape == (2, CLASSES)
    assert np.isfinite(found.tokens).all()


def test_the_same_record_twice_is_no_failure() -> None:
    (numbers, labels, left_out), rows = bank_of(2), [0, 0, 0, 1, 1]

    found = solve_memory(numbers[rows], labels[rows], left_out[rows], TEMPERATURE)

    assert np.isfinite(found.tokens).all()
    assert np.allclose(found.tokens[0], found.tokens[2])


@settings(max_examples=30)
@given(
    kept=st.lists(st.integers(0, 29), min_size=7, max_size=30, unique=True),
    order=st.randoms(use_true_random=False),
)
def test_order_of_records_does_not_count(kept: list[int], order: object) -> None:
    # Where more records than numbers are held, sums are exact.
    numbers, labels, left_out = bank_of(30)
    rows, turned = sorted(kept), list(kept)
    order.shuffle(turned)  # type: ignore[attr-defined]

    one = solve_memory(numbers[rows], labels[rows], left_out[rows], TEMPERATURE)
    other = solve_memory(numbers[turned], labels[turned], left_out[turned], TEMPERATURE)

    assert one.weights.tobytes() == other.weights.tobytes()
    assert (one.kernel, one.temperature) == (other.kernel, other.temperature)
    places = [rows.index(row) for row in turned]
    assert np.allclose(one.tokens[places], other.tokens, atol=1e-12)


@pytest.mark.parametrize("count", [3, 4, 5])
def test_order_of_few_records_does_not_move_what_is_answered(count: int) -> None:
    numbers, labels, left_out = bank_of(count, seed=6)
    found = solve_memory(numbers, labels, left_out, TEMPERATURE)

    other = solve_memory(numbers[::-1], labels[::-1], left_out[::-1], TEMPERATURE)

    assert np.abs(found.weights - other.weights).max() <= 1
