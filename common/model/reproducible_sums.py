"""Sums whose bits are a function of the numbers summed alone.

BLAS and the reductions of NumPy and PyTorch choose the order in which they add by shapes, threads and processor. Here
the second half of a row is added to the first until one number is left: every step is an elementwise addition, which
IEEE 754 fixes on every device, so that a sum does not depend on what stands beside its row.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

_Rows = TypeVar("_Rows", NDArray[np.float64], Tensor)


def sum_rows(rows: _Rows) -> _Rows:
    """Return the (n,) sums of (n, d) numbers, which are overwritten; d is at least 1."""
    length = rows.shape[1]
    while length > 1:
        half = (length + 1) // 2
        rows[:, : length - half] += rows[:, half:length]
        length = half
    return rows[:, 0]
