"""What predictions are judged by."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """Return the share of (n, C) predictions whose largest probability is the label's; NaN without any."""
    if not len(labels):
        return math.nan
    return float((probabilities.argmax(1) == labels).float().mean())


def macro_f1(probabilities: Tensor, labels: Tensor) -> float:
    """Return the F1 score averaged over the classes that are predicted or present; NaN without any prediction."""
    return score_macro_f1(labels.numpy(), probabilities.argmax(1).numpy())


def score_macro_f1(labels: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    """Return the F1 score of (n,) predicted classes, as `macro_f1`."""
    if not len(labels):
        return math.nan
    # Counted here: every round of every site has this number, and scikit-learn takes longer to import than it to train.
    classes, places = np.unique(np.concatenate([labels, predicted]), return_inverse=True)
    true, given = places[: len(labels)], places[len(labels) :]
    right = np.bincount(true[true == given], minlength=len(classes))
    present = np.bincount(true, minlength=len(classes)) + np.bincount(given, minlength=len(classes))
    return float((2 * right / present).mean())


def confidence(probabilities: Tensor, labels: Tensor) -> NDArray[np.float64]:
    """Return the (n,) probabilities that were given to the true labels."""
    return np.asarray(probabilities.gather(1, labels[:, None]).squeeze(1).double().numpy())


def membership_auroc(members: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Return the AUROC of telling members from others by their confidence (Yeom et al. 2018): 0.5 is chance.

    NaN if one of the two is empty.
    """
    if not len(members) or not len(others):
        return math.nan
    # Only simulations ask, and it takes long to import.
    from sklearn.metrics import roc_auc_score

    truth = np.concatenate([np.ones(len(members)), np.zeros(len(others))])
    return float(roc_auc_score(truth, np.concatenate([members, others])))


def true_positives(members: NDArray[np.float64], others: NDArray[np.float64], false_positives: float) -> float:
    """Return the largest share of members above a threshold that at most a given share of the others exceeds.

    Carlini et al. (2022, arXiv 2112.03570) ask for it at few false positives, where an AUROC is blind. NaN if one of
    the two is empty.
    """
    if not len(members) or not len(others):
        return math.nan
    allowed = math.floor(false_positives * len(others))
    threshold = np.sort(others)[::-1][allowed] if allowed < len(others) else -math.inf
    return float((members > threshold).mean())
