"""What a model with its banks knows about the records that are there, gone and never seen.

By these figures an audit judges: `docs/decisions/0012-what-an-audit-is-judged-by.md`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmunkey.client.learning.own_memory import mix_weights
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.model.metrics import accuracy, confidence, macro_f1, membership_auroc, true_positives
from fedmunkey.common.model.pathways import pathway_sensitivity
from fedmunkey.simulations.federation.answers import Answers, MemoryAlone, MixedAnswers
from fedmunkey.simulations.federation.hospitals import Encoded, Hospital

_RETAINED = 2000
_FALSE_POSITIVES = 0.01


@dataclass(frozen=True)
class Measurement:
    """Accuracies in percent; each record is asked at its own hospital, with that hospital's bank.

    Attributes
    ----------
    test_accuracy, test_macro_f1 : float
        TA: mean over hospitals, on the test split, for the federation's case mix.
    retain_accuracy : float
        RA: over records that stay.
    forget_accuracy : float
        FA: over records that are forgotten or are about to be.
    membership : float
        MIA: AUROC, in percent, of telling forgotten records from test records by the confidence in their labels.
    forget_confidence, test_confidence : tuple of float
        The probability that each forgotten record's label got, and each test record's where records are forgotten.
    membership_tpr : float
        True positives, in percent, of the same attack where 1% of the test records are taken for forgotten ones.
    weights_membership : float
        The same AUROC where only the shared weights are asked, no bank.
    canary_recall : float
        Share, in percent, of the canaries whose wrong label is the answer; NaN without any.
    own_accuracy : float
        Mean over hospitals, on the test split, each record counted as often as its class occurs at the hospital.
    image_accuracy, memory_accuracy : float
        Mean over hospitals, on the test split, of what is shared by itself and of what a hospital remembers by itself;
        NaN where this was not asked, and for a federation that remembers nothing.
    """

    test_accuracy: float
    retain_accuracy: float
    forget_accuracy: float
    membership: float
    test_macro_f1: float
    forget_confidence: tuple[float, ...] = ()
    test_confidence: tuple[float, ...] = ()
    membership_tpr: float = math.nan
    weights_membership: float = math.nan
    canary_recall: float = math.nan
    own_accuracy: float = math.nan
    image_accuracy: float = math.nan
    memory_accuracy: float = math.nan

    @property
    def sensitivity(self) -> float:
        """Pathway sensitivity score, -1 where the image carries everything, 1 where the memory does."""
        return pathway_sensitivity(self.image_accuracy, self.memory_accuracy)

    def gap(self, oracle: Measurement) -> float:
        """Average Gap: the mean absolute difference of TA, RA, FA and MIA, in points."""
        return float(np.mean([abs(mine - theirs) for mine, theirs in zip(self.four, oracle.four, strict=True)]))

    @property
    def four(self) -> tuple[float, float, float, float]:
        """TA, RA, FA and MIA."""
        return self.test_accuracy, self.retain_accuracy, self.forget_accuracy, self.membership


def measure(
    answers: Answers,
    hospitals: Sequence[Hospital],
    forgotten: Mapping[str, NDArray[np.int64]],
    gone: Mapping[str, NDArray[np.int64]],
    canaries: Mapping[str, NDArray[np.int64]] | None = None,
    *,
    pathways: bool = False,
) -> Measurement:
    """Measure what a federation knows at this moment; with `pathways` also what each of them knows by itself.

    For each hospital, `forgotten` holds positions among its records of the forget set, `gone` those of all records that
    do not count as retained, the forget set among them, and `canaries` those of the forget set that were learned with a
    wrong label. These have figures of their own and count in no other.
    """
    tests, f1s, own = [], [], []
    paths: tuple[list[float], list[float]] = [], []
    retained, planted = [], []
    asked = _Asked([], [], [], [], [])
    for hospital in hospitals:
        given = hospital.given
        test = hospital.test
        about_test = answers.answer(hospital.name, test)
        if hospital.name in answers.sites:
            common = answers.common(hospital.name, test) if isinstance(answers, MixedAnswers) else about_test
            tests.append(accuracy(common, _labels(test)))
            f1s.append(macro_f1(common, _labels(test)))
            own.append(own_mix_accuracy(about_test, test, given.split(Split.TRAIN)))
            if pathways and isinstance(answers, MemoryAlone):
                paths[0].append(accuracy(answers.weights_alone(hospital.name, test), _labels(test)))
                paths[1].append(accuracy(answers.memory_alone(hospital.name, test), _labels(test)))
        kept = np.setdiff1d(np.flatnonzero(given.records.splits == Split.TRAIN.value), gone[hospital.name])
        retained.append(_hits(answers, hospital, kept[:: math.ceil(len(kept) / _RETAINED) or 1]))
        wrong = canaries[hospital.name] if canaries is not None else np.empty(0, dtype=np.int64)
        planted.append(_hits(answers, hospital, wrong))
        rows = np.setdiff1d(forgotten[hospital.name], wrong)
        if len(rows):
            asked.add(answers, hospital.name, given.select(rows), test, about_test)
    members, others = _join(asked.members), _join(asked.others)
    return Measurement(
        test_accuracy=_percent(tests),
        retain_accuracy=_percent(_join(retained)),
        forget_accuracy=_percent(_join(asked.hits)),
        membership=100 * membership_auroc(members, others),
        test_macro_f1=_percent(f1s),
        own_accuracy=_percent(own),
        image_accuracy=_percent(paths[0]),
        memory_accuracy=_percent(paths[1]),
        membership_tpr=100 * true_positives(members, others, _FALSE_POSITIVES),
        weights_membership=100 * membership_auroc(_join(asked.weights_members), _join(asked.weights_others)),
        canary_recall=_percent(_join(planted)),
        forget_confidence=tuple(members.tolist()),
        test_confidence=tuple(others.tolist()),
    )


@dataclass(frozen=True)
class _Asked:
    """What hospitals said of their forgotten records and, where there are any, of test records."""

    hits: list[NDArray[np.float64]]
    members: list[NDArray[np.float64]]
    others: list[NDArray[np.float64]]
    weights_members: list[NDArray[np.float64]]
    weights_others: list[NDArray[np.float64]]

    def add(self, answers: Answers, site: str, forgotten: Encoded, test: Encoded, about_test: Tensor) -> None:
        """Ask one hospital."""
        labels, test_labels = _labels(forgotten), _labels(test)
        said = answers.answer(site, forgotten)
        self.hits.append((said.argmax(1) == labels).double().numpy())
        self.members.append(confidence(said, labels))
        self.others.append(confidence(about_test, test_labels))
        self.weights_members.append(confidence(answers.weights_alone(site, forgotten), labels))
        self.weights_others.append(confidence(answers.weights_alone(site, test), test_labels))


def own_mix_accuracy(about_test: Tensor, test: Encoded, train: Encoded) -> float:
    """Return the accuracy of answers about test records, mixed as a hospital's training records are."""
    labels = test.records.labels
    weights = mix_weights(labels, train.records.labels, about_test.shape[1])
    hits = about_test.argmax(1).numpy() == labels
    return min(float(weights @ hits / weights.sum()), 1.0) if weights.sum() else math.nan


def _hits(answers: Answers, hospital: Hospital, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return for each record whether its hospital gives the label that it came with."""
    if not len(rows):
        return np.empty(0)
    records = hospital.given.select(rows)
    return (answers.answer(hospital.name, records).argmax(1) == _labels(records)).double().numpy()


def _labels(records: Encoded) -> Tensor:
    return torch.from_numpy(records.records.labels)


def _join(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate([np.empty(0), *parts]).astype(np.float64)


def _percent(values: Sequence[float] | NDArray[np.float64]) -> float:
    return 100 * float(np.mean(values)) if len(values) else math.nan
