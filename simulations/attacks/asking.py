"""Which records the attacks are about, and how sure a federation is of their labels."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmunkey.common.model.metrics import confidence
from fedmunkey.simulations.federation.case import Case, Rows
from fedmunkey.simulations.federation.hospitals import Encoded

_SMALLEST = float(np.finfo(np.float32).tiny)
_RESOLUTION = float(np.finfo(np.float32).eps)


def honest_rows(case: Case) -> Rows:
    """Return, for each hospital, the positions of its forgotten records without canaries.

    A canary is asked about with a label that nobody would expect, so it would score low whether or not it was learned.
    """
    return {name: np.setdiff1d(rows, case.canaries[name]) for name, rows in case.forgotten.items()}


def honest_records(case: Case) -> dict[str, Encoded]:
    """Return the forgotten records without canaries of each hospital that has any."""
    rows = honest_rows(case)
    return {h.name: h.given.select(rows[h.name]) for h in case.hospitals if len(rows[h.name])}


def label_confidence(probabilities: Tensor, records: Encoded) -> NDArray[np.float64]:
    """Return the (n,) probabilities that (n, num_classes) answers give to the records' labels."""
    return confidence(probabilities, torch.from_numpy(records.records.labels))


def log_confidence(probabilities: Tensor, records: Encoded) -> NDArray[np.float64]:
    """Return the (n,) logarithms of `label_confidence`, finite also where it is 0."""
    return np.log(np.maximum(label_confidence(probabilities, records), _SMALLEST))


def logit_confidence(probabilities: Tensor, records: Encoded) -> NDArray[np.float64]:
    """Return (n,) log(p / (1 - p)) of the labels' probabilities p, which are nearly Gaussian over training runs.

    Carlini et al. 2022, arXiv 2112.03570. Where p is nearer to 0 or 1 than a float32 can tell, it counts
    as that near, so that one answer without any doubt does not outweigh all others.
    """
    sure = label_confidence(probabilities, records)
    # Adding the other classes up keeps the digits that 1 - p would lose.
    rest = np.maximum(probabilities.double().sum(1).numpy() - sure, _RESOLUTION)
    return np.asarray(np.log(np.maximum(sure, _RESOLUTION)) - np.log(rest))


def join(parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the parts, which may be none, one after the other."""
    return np.concatenate([np.empty(0), *parts])
