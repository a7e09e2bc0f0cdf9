"""Sums have the same bytes however records are ordered, blocked and divided, and what is no sum is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from fedmunkey.common.closed_form.feature_map import CONSTANT, SCALE
from fedmunkey.common.closed_form.folds import FOLDS, folds_of
from fedmunkey.common.closed_form.sums import MOST_RECORDS, Sums, SumsShape
from fedmunkey.common.errors import InvalidWeights
from tests.common.closed_form.conftest import CLASSES, SIZE, numbered, summed

SHAPE = SumsShape(FOLDS, SIZE, CLASSES)
Row = NDArray[np.uint64]


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    count=st.integers(0, 60),
    sites=st.integers(1, 5),
    block=st.integers(1, 20),
    order=st.randoms(use_true_random=False),
)
def test_bytes_do_not_depend_on_order_blocks_or_division(
    seed: int, count: int, sites: int, block: int, order: object
) -> None:
    numbers, labels, folds = numbered(count, seed=seed)
    expected = summed(numbers, labels, folds)
    rows = list(range(count))
    order.shuffle(rows)  # type: ignore[attr-defined]
    total = Sums.zeros(SHAPE)
    row = np.zeros(SHAPE.length, dtype=np.uint64)

    for site in range(sites):
        own = np.array(rows[site::sites], dtype=np.int64)
        contribution = Sums.zeros(SHAPE)
        for start in range(0, len(own), block):
            part = own[start : start + block]
            contribution.add(numbers[part], labels[part], folds[part])
        total = total.plus(contribution)
        row += contribution.to_numbers()

    assert total.to_numbers().tobytes() == expected.to_numbers().tobytes() == row.tobytes()
    assert total.digest() == expected.digest()
    assert total.records == count
    assert Sums.from_numbers(row, SHAPE).grams.tobytes() == expected.grams.tobytes()


def test_sums_are_those_of_whole_numbers() -> None:
    numbers, labels, folds = numbered(50)
    found = summed(numbers, labels, folds)

    for fold in range(FOLDS):
        whole = numbers[folds == fold].astype(np.int64)
        one_hot = np.eye(CLASSES, dtype=np.int64)[labels[folds == fold]]
        assert np.array_equal(found.grams[fold], whole.T @ whole)
        assert np.array_equal(found.moments[fold], whole.T @ one_hot)
        assert np.array_equal(found.counts[fold], one_hot.sum(0))


def test_a_matrix_product_of_the_largest_numbers_is_exact() -> None:
    # Of as many records as fit the sum is 2^53, which float64 still tells from its neighbours below.
    many = 2**12
    numbers = np.full((many, 2), SCALE)
    numbers[:, 1] = CONSTANT

    found = summed(numbers, np.zeros(many, dtype=np.int64), np.zeros(many, dtype=np.int64), classes=2)

    assert int(found.grams[0, 0, 0]) == many * 2**28
    assert MOST_RECORDS * int(SCALE) ** 2 <= 2**53


def test_bytes_do_not_depend_on_threads() -> None:
    numbers, labels, folds = numbered(500, size=200)
    found = set()
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.add(summed(numbers, labels, folds).digest())

    assert len(found) == 1


def test_more_records_than_sums_are_exact_for_are_refused() -> None:
    sums = Sums.zeros(SHAPE)
    sums.counts[0, 0] = MOST_RECORDS - 1
    numbers, labels, folds = numbered(2)

    sums.add(numbers[:1], labels[:1], folds[:1])
    with pytest.raises(ValueError, match="sums over more than 33554432 records are not exact"):
        sums.add(numbers[1:], labels[1:], folds[1:])


def test_row_is_half_of_each_matrix_and_comes_back() -> None:
    found = summed(*numbered(40))
    row = found.to_numbers()

    assert row.dtype == np.uint64
    assert len(row) == SHAPE.length == FOLDS * (SIZE * (SIZE + 1) // 2 + SIZE * CLASSES + CLASSES)
    back = Sums.from_numbers(row, SHAPE)
    assert all(np.array_equal(*pair) for pair in zip(vars(back).values(), vars(found).values(), strict=True))
    nothing = Sums.from_numbers(np.zeros(SHAPE.length, dtype=np.uint64), SHAPE)
    assert nothing.records == 0


# What is no sum.


def changed(change: Callable[[Sums], object]) -> Row:
    found = summed(*numbered(40))
    change(found)
    return found.to_numbers()


def put(name: str, place: tuple[int, ...], value: float) -> Callable[[Sums], object]:
    return lambda sums: getattr(sums, name).__setitem__(place, value)


def raise_by(name: str, place: tuple[int, ...], value: float) -> Callable[[Sums], object]:
    return lambda sums: getattr(sums, name).__setitem__(place, getattr(sums, name)[place] + value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (put("counts", (0, 1), -1), "a class has a count that is negative or too large"),
        (put("counts", (0, 1), MOST_RECORDS + 1), "a class has a count that is negative or too large"),
        (raise_by("counts", (1, 1), 1), "their constants do not agree with the counts"),
        (raise_by("moments", (2, -1, 0), 1), "their constants do not agree with the counts"),
        (raise_by("grams", (0, -1, -1), 1), "their constants do not agree with the counts"),
        (put("grams", (0, 2, 2), -1), "a number's square is negative or too large"),
        (put("grams", (0, 2, 2), 2.0**52), "a number's square is negative or too large"),
        (put("grams", (0, 1, 3), 2.0**36), "two numbers agree more than each with itself"),
        (put("grams", (0, 1, 3), -(2.0**36)), "two numbers agree more than each with itself"),
        (put("moments", (1, 2, 0), 2.0**30), "a number agrees with a class more than with itself"),
    ],
)
def test_what_cannot_come_of_records_is_refused(change: Callable[[Sums], object], reason: str) -> None:
    row = changed(change)

    with pytest.raises(InvalidWeights, match=f"these are no sums over records: {reason}"):
        Sums.from_numbers(row, SHAPE)


@pytest.mark.parametrize("length", [0, SHAPE.length - 1, SHAPE.length + 1])
def test_another_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidWeights, match=f"{length} numbers are not the {SHAPE.length} of sums"):
        Sums.from_numbers(np.zeros(length, dtype=np.uint64), SHAPE)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), part=st.sampled_from([1, 2, 7, SHAPE.length]))
def test_masks_that_do_not_cancel_are_refused(seed: int, part: int) -> None:
    row = summed(*numbered(40)).to_numbers()
    draw = np.random.default_rng(seed)
    places = draw.choice(SHAPE.length, part, replace=False)
    row[places] += draw.integers(2**40, 2**64 - 2**40, part, dtype=np.uint64)

    with pytest.raises(InvalidWeights, match="these are no sums over records"):
        Sums.from_numbers(row, SHAPE)


# Folds.


def test_subject_decides_the_fold_wherever_it_is_and_folds_are_about_equal() -> None:
    found = folds_of([f"patient-{number}" for number in range(3000)])

    assert folds_of(["patient-7", "patient-7", "patient-8"]).tolist() == [found[7], found[7], found[8]]
    assert np.bincount(found, minlength=FOLDS).min() > 900
    # Known answers: another version that folds otherwise would choose another ridge of the same records.
    assert found[:12].tolist() == [2, 0, 1, 1, 0, 2, 2, 1, 2, 2, 2, 2]
