"""The groups of forgotten records that an audit looks at by themselves: an average hides what few records lose."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fedmunkey.simulations.attacks.asking import honest_records, honest_rows
from fedmunkey.simulations.federation.case import Case

RAREST = "the rarest tenth"
FIRST = "the first half of the deletions"

Mask = NDArray[np.bool_]


def groups_of(case: Case) -> dict[str, Mask]:
    """Return, by name, masks over the forgotten records without canaries, hospital by hospital.

    There is one for each class and each hospital, and one for the tenth that is least like the retained records of its
    class and hospital, by the cosine of keys. Of several deletions the first half is one as well: what was forgotten
    may be known again after later deletions (arXiv 2604.19108, "forgetting reversal").
    """
    gone = honest_records(case)
    if not gone:
        return {}
    names = [name for name, some in gone.items() for _ in range(len(some.records))]
    labels = np.concatenate([some.records.labels for some in gone.values()])
    classes = next(iter(gone.values())).records.class_names
    groups: dict[str, Mask] = {
        f"class {name}": labels == label for label, name in enumerate(classes) if (labels == label).any()
    }
    groups |= {name: np.array(names) == name for name in gone}
    likeness = _likeness(case)
    rarest = np.zeros(len(names), dtype=np.bool_)
    rarest[np.argsort(likeness, kind="stable")[: math.ceil(len(names) / 10)]] = True
    if len(case.deletions) > 1:
        groups[FIRST] = _in_first_half(case)
    return {**groups, RAREST: rarest}


def _in_first_half(case: Case) -> Mask:
    early = case.deletions[: len(case.deletions) // 2]
    found = [np.empty(0, dtype=np.bool_)]
    for name, rows in honest_rows(case).items():
        first = np.concatenate([np.empty(0, dtype=np.int64), *(one[name] for one in early)])
        found.append(np.isin(rows, first))
    return np.concatenate(found)


def _likeness(case: Case) -> NDArray[np.float64]:
    """Return each forgotten record's cosine with the retained one of its class and hospital that is most like it."""
    retained, found = case.retained(), []
    for name, some in honest_records(case).items():
        cosines = (some.encoding.keys @ retained[name].encoding.keys.T).double().numpy()
        same = some.records.labels[:, None] == retained[name].records.labels[None, :]
        found.append(np.where(same, cosines, -1.0).max(axis=1, initial=-1.0))
    return np.concatenate(found)
