"""A thousand hospitals in a table: how their figures are spread, and by name only those at both ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

MOST_LISTED = 30
"""Hospitals up to which each has a line."""

QUANTILES = (("lowest", 0.0), ("lower tenth", 0.1), ("median", 0.5), ("upper tenth", 0.9), ("highest", 1.0))
"""What is shown of the others, and which share of hospitals is below."""

_AT_EACH_END = 5


def spread(values: Iterable[float | None]) -> list[float | None]:
    """Return the quantiles of those values that are known; None for each where none is."""
    known = [value for value in values if value is not None]
    if not known:
        return [None] * len(QUANTILES)
    return [float(found) for found in np.quantile(known, [share for _, share in QUANTILES])]


def spread_rows(
    columns: Sequence[Sequence[float | None]], write: Callable[[float | None], str]
) -> list[tuple[str, ...]]:
    """Return a row for each quantile: its name, then that of each column."""
    spreads = [spread(column) for column in columns]
    return [(name, *(write(quantiles[place]) for quantiles in spreads)) for place, (name, _) in enumerate(QUANTILES)]


def at_the_ends(names: Sequence[str], values: Sequence[float | None]) -> list[str]:
    """Return the names with the lowest and the highest known values, in the order of these."""
    known = [(value, name) for name, value in zip(names, values, strict=True) if value is not None]
    ordered = [name for _, name in sorted(known)]
    if len(ordered) <= 2 * _AT_EACH_END:
        return ordered
    return [*ordered[:_AT_EACH_END], *ordered[-_AT_EACH_END:]]
