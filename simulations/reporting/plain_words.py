"""What a report says in plain words of guarantees and epsilon."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fedmunkey.common.deletions.status_words import loss_words
from fedmunkey.common.privacy.guarantees import PrivacyLoss

_MEANS = {
    "exact": (
        "What the hospitals share never learned from a record that may be withdrawn, and every entry in a memory bank "
        "depends on its own record only. After a deletion the federation is not merely similar to one that never had "
        "the record: it has the same bytes."
    ),
    "certified": (
        "What the hospitals share did learn from the record, but every record's contribution was limited and covered "
        "with noise. How much anyone can still find out about a deleted record is bounded by mathematics, whatever "
        "they do and whatever else they know."
    ),
    "empirical": (
        "Nothing bounds what the shared weights still know of a deleted record. It is measured instead: this report "
        "attacks the federation and compares it with oracles, which never saw the record. A better attack may find "
        "more."
    ),
}


def guarantee_words(name: str) -> str:
    """Return what a guarantee means, for a reader who knows nothing of machine learning."""
    return _MEANS[name]


_DIVIDED = {
    "labels": "alpha = {alpha}",
    "sizes": "sizes by alpha = {alpha}",
    "sources": "divided by source",
}


def division_words(where: Mapping[str, Any]) -> str:
    """Return what hospitals differ in, of a run or a question; reports of earlier versions know of labels only."""
    division = where.get("division", {"by": "labels", "feature_shift": 0})
    words = _DIVIDED[division["by"]].format(alpha="inf" if where["alpha"] is None else where["alpha"])
    shift = division["feature_shift"]
    return f"{words}, feature shift {shift:g}" if shift else words


def epsilon_words(guarantee: dict[str, Any]) -> str:
    """Return what (epsilon, delta) lets anyone find out; nothing where the guarantee has no epsilon.

    Under (epsilon, 0) differential privacy the odds of any hypothesis about one record change by a factor of
    exp(epsilon) at most (Dwork and Roth 2014, section 2.3.3), so even odds become a probability
    of 1 / (1 + exp(-epsilon)).
    """
    epsilon, delta = guarantee["epsilon"], guarantee["delta"]
    if epsilon is None:
        return ""
    if epsilon == "inf":
        return "Epsilon is infinite: nothing is bounded."
    # Rounded up: a bound must not look smaller than it is.
    surest = math.ceil(1000 / (1 + math.exp(-epsilon))) / 10
    failing = f", save for a probability of delta = {delta:.3g}" if delta else ""
    return (
        f"Epsilon is {loss_words(PrivacyLoss(epsilon, delta or 0.0))}: whoever held it for as likely as not that the "
        f"record took part can be at most {surest:g}% sure of it from what the hospitals share{failing}."
    )


def identical_words(identical: bool | None) -> str:
    """Return what came of comparing the state after deletion with the oracle's, byte by byte."""
    if identical is None:
        return "The state after deletion was not compared with the oracle's byte by byte."
    if identical:
        return "Checked: after deletion the state has the same bytes as the oracle's."
    return "After deletion the state does not have the same bytes as the oracle's."
