"""A small case, and federations that answer as they are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.attacks.candidates import Candidates, candidates
from fedmunkey.simulations.federation.answers import Answers
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Encoded, Hospital
from tests.simulations.given_records import case_of, train_rows

Tell = Callable[..., Answers]


@dataclass(frozen=True)
class Told:
    """Gives each record's label the probability that the record's id has, and the rest to the next class."""

    sure: Mapping[str, float]
    weights: Mapping[str, float] = field(default_factory=dict)
    otherwise: float = 0.5
    sites: frozenset[str] = frozenset()

    def answer(self, site: str, records: Encoded) -> Tensor:
        del site
        return self._say(self.sure, records)

    def weights_alone(self, site: str, records: Encoded) -> Tensor:
        del site
        return self._say(self.weights, records)

    def _say(self, sure: Mapping[str, float], records: Encoded) -> Tensor:
        said = torch.zeros(len(records.records), records.records.num_classes)
        rows = np.arange(len(records.records))
        labels = records.records.labels
        given = torch.tensor([sure.get(record, self.otherwise) for record in records.records.record_ids.tolist()])
        said[rows, labels] = given
        said[rows, (labels + 1) % records.records.num_classes] = 1 - given
        return said


@pytest.fixture
def told() -> Tell:
    """Return a function that makes a federation from probabilities by record id, with banks and of weights alone."""
    return Told


@pytest.fixture
def case(hospitals: list[Hospital], settings: Settings, shape: ModelShape) -> Case:
    """Three records of the first hospital and two of the second are forgotten; the first's first is a canary."""
    first, second, _ = hospitals
    rows = {first.name: train_rows(first)[:3], second.name: train_rows(second)[:2]}
    honest = case_of(hospitals, rows, settings, shape)
    return replace(honest, canaries={**honest.canaries, first.name: rows[first.name][:1]})


@pytest.fixture
def honest(case: Case) -> list[str]:
    """The record ids of the four forgotten records that are no canaries, hospital by hospital."""
    gone = {name: np.setdiff1d(rows, case.canaries[name]) for name, rows in case.forgotten.items()}
    return [str(record) for h in case.hospitals for record in h.given.records.record_ids[gone[h.name]]]


@pytest.fixture
def canary(case: Case) -> str:
    hospital = case.hospitals[0]
    return str(hospital.given.records.record_ids[case.canaries[hospital.name][0]])


@pytest.fixture
def asked(case: Case) -> Candidates:
    return candidates(case)
