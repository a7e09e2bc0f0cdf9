from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedmunkey.common.model.reproducible_sums import sum_rows


def draw(seed: int, rows: int, columns: int) -> NDArray[np.float64]:
    numbers = np.random.default_rng(seed)
    return numbers.normal(size=(rows, columns)) * 2.0 ** numbers.integers(-30, 30, (rows, columns))


@given(seed=st.integers(0, 999), rows=st.integers(1, 40), columns=st.integers(1, 70))
def test_sum_of_a_row_does_not_depend_on_the_rows_beside_it(seed: int, rows: int, columns: int) -> None:
    values = draw(seed, rows, columns)

    together = sum_rows(values.copy())

    assert [float(sum_rows(values[row : row + 1].copy())[0]) for row in range(rows)] == together.tolist()
    assert sum_rows(values[::-1].copy()).tolist() == together[::-1].tolist()
    assert sum_rows(np.asfortranarray(values)).tolist() == together.tolist()


@given(seed=st.integers(0, 999), columns=st.integers(1, 70))
def test_arrays_and_tensors_have_the_same_sums(seed: int, columns: int) -> None:
    values = draw(seed, 5, columns)

    assert sum_rows(torch.from_numpy(values.copy())).tolist() == sum_rows(values.copy()).tolist()


@given(st.lists(st.lists(st.integers(-1000, 1000), min_size=9, max_size=9), min_size=1, max_size=5))
def test_every_number_is_counted_once(values: list[list[int]]) -> None:
    assert sum_rows(np.array(values, dtype=np.float64)).tolist() == [sum(row) for row in values]
