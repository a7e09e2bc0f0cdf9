"""What a model with its banks knows about the records that are there, gone and never seen (DESIGN.md, section 8)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from client.bank import Bank
from client.dataset import Split
from client.evaluation import predict
from common.metrics import accuracy, confidence, macro_f1, membership_auroc
from common.model import Munkey
from common.neighbours import nearest
from common.settings import Settings
from simulations.hospitals import Encoded, Hospital

_RETAINED = 2000


@dataclass(frozen=True)
class Measurement:
    """Accuracies in percent; each record is asked at its own hospital, with that hospital's bank.

    Attributes
    ----------
    test_accuracy : float
        TA: mean over hospitals, on the test split.
    retain_accuracy : float
        RA: over records that stay.
    forget_accuracy : float
        FA: over records that are forgotten or are about to be.
    membership : float
        MIA: AUROC, in percent, of telling forgotten records from test records by the confidence in their labels.
    test_macro_f1 : float
        Mean over hospitals, in percent.
    forget_confidence : tuple of float
        The probability that each forgotten record's label got.
    """

    test_accuracy: float
    retain_accuracy: float
    forget_accuracy: float
    membership: float
    test_macro_f1: float
    forget_confidence: tuple[float, ...] = ()

    def gap(self, oracle: Measurement) -> float:
        """Average Gap: the mean absolute difference of TA, RA, FA and MIA, in points."""
        return float(np.mean([abs(mine - theirs) for mine, theirs in zip(self.four, oracle.four, strict=True)]))

    @property
    def four(self) -> tuple[float, float, float, float]:
        """TA, RA, FA and MIA."""
        return self.test_accuracy, self.retain_accuracy, self.forget_accuracy, self.membership


@dataclass(frozen=True)
class HospitalBank:
    """A hospital's bank together with its keys, which only a simulation holds side by side."""

    bank: Bank
    keys: torch.Tensor


def measure(
    model: Munkey,
    hospitals: Sequence[Hospital],
    banks: Mapping[str, HospitalBank],
    forgotten: Mapping[str, NDArray[np.int64]],
    gone: Mapping[str, NDArray[np.int64]],
    settings: Settings,
) -> Measurement:
    """Measure a model.

    Parameters
    ----------
    model : Munkey
        With the shared weights.
    hospitals : sequence of Hospital
        All of them.
    banks : mapping
        The hospitals' banks as they are at this moment, by name.
    forgotten : mapping
        For each hospital, positions among its records of the forget set.
    gone : mapping
        For each hospital, positions of all records that do not count as retained, the forget set among them.
    settings : Settings
        How neighbours are read.
    """
    tests, f1s = [], []
    retained, forget_hits, forget_confidence, test_confidence = [], [], [], []
    for hospital in hospitals:
        place = banks[hospital.name]
        given = hospital.given
        test, test_labels = _ask(model, place, given.split(Split.TEST), settings)
        if len(place.bank):
            tests.append(accuracy(test, test_labels))
            f1s.append(macro_f1(test, test_labels))
        kept = np.setdiff1d(np.flatnonzero(given.records.splits == Split.TRAIN.value), gone[hospital.name])
        kept = kept[:: math.ceil(len(kept) / _RETAINED) or 1]
        probabilities, labels = _ask(model, place, given.select(kept), settings)
        retained.append((probabilities.argmax(1) == labels).numpy())
        if len(forgotten[hospital.name]):
            probabilities, labels = _ask(model, place, given.select(forgotten[hospital.name]), settings)
            forget_hits.append((probabilities.argmax(1) == labels).numpy())
            forget_confidence.append(confidence(probabilities, labels))
            test_confidence.append(confidence(test, test_labels))
    members = _join(forget_confidence)
    return Measurement(
        test_accuracy=_percent(tests),
        retain_accuracy=_percent(_join(retained)),
        forget_accuracy=_percent(_join(forget_hits)),
        membership=100 * membership_auroc(members, _join(test_confidence)),
        test_macro_f1=_percent(f1s),
        forget_confidence=tuple(members.tolist()),
    )


def _ask(model: Munkey, place: HospitalBank, records: Encoded, settings: Settings) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (n, C) probabilities for records looked up in a bank, and their labels; own entries count as any other."""
    lists = nearest(records.encoding.keys, place.keys, settings.neighbours)
    labels = torch.from_numpy(records.records.labels)
    return predict(model, place.bank, records.inputs(model.shape), lists, settings), labels


def _join(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate([np.empty(0), *parts]).astype(np.float64)


def _percent(values: Sequence[float] | NDArray[np.float64]) -> float:
    return 100 * float(np.mean(values)) if len(values) else math.nan
