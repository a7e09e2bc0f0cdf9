"""Numbers as people read them; what is not known is an en dash."""

from __future__ import annotations

from typing import Any

UNKNOWN = "–"
Interval = dict[str, Any]
"""As the schema has it: mean, half and values."""


def decimals(value: float | None, digits: int = 1) -> str:
    """Return a number with so many decimals, as in `82.9`."""
    if value is None:
        return UNKNOWN
    # A tiny negative number would be shown as -0.0.
    return f"{round(value, digits) + 0.0:.{digits}f}"


def interval(found: Interval | None, digits: int = 1, factor: float = 1.0) -> str:
    """Return mean and half width, as in `82.9 ± 0.6`; `factor` is 100 for a share that is shown in percent."""
    if found is None or found["mean"] is None:
        return UNKNOWN
    mean = decimals(factor * found["mean"], digits)
    return mean if found["half"] is None else f"{mean} ± {decimals(factor * found['half'], digits)}"


def figure(value: float | None) -> str:
    """Return a number of unknown size with about three digits that count."""
    if value is None:
        return UNKNOWN
    if float(value).is_integer():
        return f"{value:,.0f}"
    size = abs(value)
    return f"{value:,.1f}" if size >= 10 else f"{value:.2f}" if size >= 1 else f"{value:.3g}"


def share(value: float | None) -> str:
    """Return a share in percent, as in `10%`."""
    return UNKNOWN if value is None else f"{100 * value:.3g}%"


def seconds(value: float | None) -> str:
    """Return a time in the unit that suits it."""
    if value is None:
        return UNKNOWN
    if value < 1:
        return f"{1000 * value:.3g} ms"
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.3g} min" if value < 7200 else f"{value / 3600:.3g} h"


def size(value: float | None) -> str:
    """Return bytes in the decimal unit that suits them."""
    if value is None:
        return UNKNOWN
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if value >= 10**power:
            return f"{value / 10**power:.3g} {unit}"
    return f"{value:.0f} bytes"


def times(ratio: float) -> str:
    """Return how many times, with two digits that count, as in `5,300 times`."""
    shown = float(f"{ratio:.2g}")
    return f"{shown:,.0f} times" if shown >= 10 else f"{shown:.2g} times"


def plain(value: Any) -> str:
    """Return a setting or a property of a machine as it would be typed."""
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.12g}"
    return str(value) if value != "" else "(empty)"
