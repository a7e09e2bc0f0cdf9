"""Which method has the best value of a column, among those that forget without retraining."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedmunkey.simulations.reporting.numerals import decimals


def best_methods(comparison: Mapping[str, Any], data: str, column: Mapping[str, Any]) -> set[str]:
    """Return the names of the best methods on a data set; more than one where the digits that are shown are the same.

    None of a column for which neither higher nor lower is better.
    """
    if column["better"] not in ("higher", "lower"):
        return set()
    retraining = {method["name"] for method in comparison["methods"] if method["retrains"]}
    found = {
        result["method"]: result["figures"][column["name"]]["mean"]
        for result in comparison["results"]
        if result["data"] == data and result["method"] not in retraining and column["name"] in result["figures"]
    }
    known = {method: mean for method, mean in found.items() if mean is not None}
    if not known:
        return set()
    champion = max(known.values()) if column["better"] == "higher" else min(known.values())
    shown = decimals(champion, column["digits"])
    return {method for method, mean in known.items() if decimals(mean, column["digits"]) == shown}


def score(tried: Mapping[str, Any]) -> float | None:
    """Return a searched setting's accuracy less its Average Gap, which learning has not; None where it has neither."""
    return None if tried["accuracy"] is None else float(tried["accuracy"]) - float(tried["gap"] or 0.0)
