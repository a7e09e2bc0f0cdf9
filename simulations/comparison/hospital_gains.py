"""Each hospital compared with itself: what it gains by the federation over staying alone.

A hospital that stays alone has what it would train by itself, and its nearest neighbours, which need no training; both
are compared with, and so is whichever of the two turns out to be the better one there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedmunkey.client.learning.own_memory import mix_weights
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.comparison.cell import claims
from fedmunkey.simulations.comparison.judging import Judged, judge
from fedmunkey.simulations.federation.answers import Answers, common_answers
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Encoded, divide
from fedmunkey.simulations.federation.solved_federation import SolvedFederation
from fedmunkey.simulations.forget_sets.question import Question
from fedmunkey.simulations.reporting.intervals import Interval
from fedmunkey.simulations.unlearning.alone import AloneFamily
from fedmunkey.simulations.unlearning.munkey import munkey_family
from fedmunkey.simulations.unlearning.nearest_neighbours import NeighbourFamily
from fedmunkey.simulations.unlearning.registry import METHODS

FEDERATED, ALONE, NEIGHBOURS, BETTER = "federated", "alone", "neighbours", "better of both"
COMMON, OWN = "common", "own"
MIXES = (COMMON, OWN)
"""Test records as they are, and each counted as often as its class occurs among the hospital's training records."""

LOSES = 1.0
"""Points of accuracy that a hospital has to lose to be counted."""

_DIVISIONS = (1, 3, 10)


@dataclass(frozen=True)
class AtHospital:
    """What was found at one hospital: for each mix, by model, how good its answers are."""

    hospital: str
    records: int
    judged: Mapping[str, Mapping[str, Judged]]

    def gain(self, mix: str, over: str) -> float:
        """Return the points of accuracy that the federation gives to this hospital over another model of its own."""
        found = self.judged[mix]
        rivals = (ALONE, NEIGHBOURS) if over == BETTER else (over,)
        return found[FEDERATED].accuracy - max(found[rival].accuracy for rival in rivals)


@dataclass(frozen=True)
class Division:
    """One seed's division among hospitals.

    Attributes
    ----------
    digest : str
        Of the shared weights before anything was forgotten; empty where they are not solved for.
    identical : float
        1 if after the deletion all bytes are those of a federation that never had the records, 0 if not.
    """

    hospitals: Sequence[AtHospital]
    digest: str
    identical: float


def compare_hospitals(question: Question, images: Encoded, seed: int) -> Division:
    """Train, forget, and compare each hospital with what it would have without the others."""
    torch.set_num_threads(1)
    case = question.case(images, seed)
    method = METHODS[f"munkey-{case.settings.guarantee}"]
    trained = method.family.train(case.everything(), case.settings, case.shape)
    federated = method.forget(trained, case, question.budget).answers
    retained = case.retained()
    clean = munkey_family(case.settings.guarantee).train(retained, case.settings, case.shape)
    models: dict[str, Answers] = {
        FEDERATED: federated,
        ALONE: AloneFamily().train(retained, case.settings, case.shape),
        NEIGHBOURS: NeighbourFamily().train(retained, case.settings, case.shape),
    }
    places = [name for name in retained if name in federated.sites]
    return Division(
        [_compare(name, case, retained[name], models) for name in places],
        trained.release.digest() if isinstance(trained, SolvedFederation) else "",
        claims(federated, clean)[0],
    )


def _compare(name: str, case: Case, train: Encoded, models: Mapping[str, Answers]) -> AtHospital:
    test = next(hospital for hospital in case.hospitals if hospital.name == name).given.split(Split.TEST)
    labels = test.records.labels
    weights = {
        COMMON: np.ones(len(labels)),
        OWN: mix_weights(labels, train.records.labels, case.settings.num_classes),
    }
    asked: dict[str, Callable[[Answers], torch.Tensor]] = {
        COMMON: lambda model: common_answers(model, name, test),
        OWN: lambda model: model.answer(name, test),
    }
    judged = {
        mix: {model: judge(asked[mix](one).double().numpy(), labels, weights[mix]) for model, one in models.items()}
        for mix in MIXES
    }
    return AtHospital(name, len(train.records), judged)


def divisions_digests(settings: Settings, question: Question, images: Encoded) -> list[str]:
    """Return digests of shared weights of other numbers of hospitals, with records in another order.

    Where weights are not solved for, there are none.
    """
    shape = question.case(images, settings.seed).shape
    found = []
    for hospitals in _DIVISIONS:
        divided = divide(images, hospitals, alpha=question.alpha, permanent=question.permanent, seed=settings.seed)
        records = {one.name: _reversed(one.given.split(Split.TRAIN)) for one in reversed(divided)}
        trained = munkey_family(settings.guarantee).train(records, settings, shape)
        if isinstance(trained, SolvedFederation):
            found.append(trained.release.digest())
    return found


def _reversed(records: Encoded) -> Encoded:
    rows: NDArray[np.int64] = np.arange(len(records.records))[::-1].copy()
    return records.select(rows)


@dataclass(frozen=True)
class Gains:
    """What was found of one data set at one alpha, over seeds."""

    data: str
    alpha: float
    divisions: Sequence[Division]

    def mean(self, mix: str, model: str, figure: str) -> Interval:
        """Return a model's figure, mean over the hospitals that have it: with one class only there is no AUROC."""
        return Interval.of(
            [
                float(np.nanmean([getattr(one.judged[mix][model], figure) for one in division.hospitals]))
                for division in self.divisions
            ]
        )

    def gain(self, mix: str, over: str) -> Interval:
        """Return what the federation gives to a hospital over another model of its own: mean over hospitals."""
        return Interval.of(
            [float(np.mean([one.gain(mix, over) for one in division.hospitals])) for division in self.divisions]
        )

    def every_gain(self, mix: str, over: str) -> list[float]:
        """Return the gains of all hospitals of all seeds."""
        return [one.gain(mix, over) for division in self.divisions for one in division.hospitals]

    def to_json(self) -> dict[str, Any]:
        """Return all figures, JSON-ready."""
        figures = list(Judged.__dataclass_fields__)
        return {
            "data": self.data,
            "alpha": str(self.alpha),
            "digests": sorted({division.digest for division in self.divisions}),
            "identical": [division.identical for division in self.divisions],
            "mixes": {
                mix: {
                    "models": {
                        model: {figure: _short(self.mean(mix, model, figure)) for figure in figures}
                        for model in (FEDERATED, ALONE, NEIGHBOURS)
                    },
                    "gains": {over: self._gains(mix, over) for over in (ALONE, NEIGHBOURS, BETTER)},
                }
                for mix in MIXES
            },
        }

    def _gains(self, mix: str, over: str) -> dict[str, Any]:
        every = self.every_gain(mix, over)
        return {"mean": _short(self.gain(mix, over)), "worst": min(every), "share_that_loses": share_that_loses(every)}


def share_that_loses(gains: Sequence[float]) -> float:
    """Return the share, in percent, of hospitals that lose more than `LOSES` points."""
    return 100 * float(np.mean([gain < -LOSES for gain in gains]))


def _short(found: Interval) -> list[float]:
    return [found.mean, found.half]
