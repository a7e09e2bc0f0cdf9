"""How good probabilities are, on records that count more or less."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score

_BINS = 15
_LEAST = 1e-12


@dataclass(frozen=True)
class Judged:
    """Figures of some answers, in percent save for the loss.

    Attributes
    ----------
    balanced_accuracy : float
        Mean over classes of the share that is answered rightly.
    auroc : float
        Mean over classes of telling each from the others; NaN where only one is there.
    calibration : float
        Expected calibration error in 15 bins of equal width (Guo et al. 2017).
    loss : float
        Mean negative log-likelihood in nats.
    """

    accuracy: float
    macro_f1: float
    balanced_accuracy: float
    auroc: float
    calibration: float
    loss: float


def judge(said: NDArray[np.float64], labels: NDArray[np.int64], weights: NDArray[np.float64]) -> Judged:
    """Judge (n, classes) probabilities of n labelled records, each of which counts with its weight."""
    there = weights > 0
    said, labels, weights = said[there], labels[there], weights[there] / weights.sum()
    answered = said.argmax(1)
    hits = answered == labels
    classes = np.unique(labels)
    lost = -np.log(np.maximum(said[np.arange(len(labels)), labels], _LEAST))
    return Judged(
        accuracy=100 * float(weights @ hits),
        macro_f1=100 * float(f1_score(labels, answered, average="macro", zero_division=0.0, sample_weight=weights)),
        balanced_accuracy=100 * float(np.mean([hits[labels == one].mean() for one in classes])),
        auroc=100 * float(np.mean([roc_auc_score(labels == one, said[:, one]) for one in classes]))
        if len(classes) > 1
        else math.nan,
        calibration=100 * _calibration_error(said.max(1), hits, weights),
        loss=float(weights @ lost),
    )


def _calibration_error(confidence: NDArray[np.float64], hits: NDArray[np.bool_], weights: NDArray[np.float64]) -> float:
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.bincount(bins, weights * (confidence - hits), _BINS)
    return float(np.abs(gaps).sum())
