"""A new last layer on what the shared weights compute."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedmunkey.common.model.model import ModelShape
from fedmunkey.simulations.attacks.attack import Attacked
from fedmunkey.simulations.attacks.linear_probe import LinearProbe, represent
from fedmunkey.simulations.attacks.weights_only import WeightsOnly
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.unlearning.plain_federation import PlainFederation
from tests.simulations.attacks.conftest import Tell
from tests.simulations.given_records import train_rows


class Hides(nn.Module):
    """Says nothing of any record, and still computes the class of those that it was shown."""

    def __init__(self, shape: ModelShape, shown: dict[bytes, int]) -> None:
        super().__init__()
        self.shape, self._shown = shape, shown
        self.head = nn.Linear(shape.num_classes + 1, shape.num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        seen = torch.zeros(len(inputs), self.shape.num_classes + 1)
        for row, one in enumerate(inputs):
            seen[row, self._shown.get(one.numpy().tobytes(), self.shape.num_classes)] = 1.0
        said: Tensor = self.head(seen)
        return said


def many(case: Case) -> Case:
    first, second, third = case.hospitals
    rows = {first.name: train_rows(first)[:8], second.name: train_rows(second)[:8], third.name: train_rows(third)[:0]}
    return replace(case, deletions=[rows], canaries={name: some[:0] for name, some in rows.items()})


def federation(case: Case, *, remembers: bool) -> PlainFederation:
    shown: dict[bytes, int] = {}
    for records in (case.everything() if remembers else case.retained()).values():
        for one, label in zip(records.inputs(case.shape), records.records.labels.tolist(), strict=True):
            shown[one.numpy().tobytes()] = label
    model: Any = Hides(case.shape, shown)
    return PlainFederation(model, frozenset(h.name for h in case.hospitals))


def test_what_only_the_last_layer_forgot_is_found_by_another(case: Case) -> None:
    some = many(case)
    hides, honest = (federation(some, remembers=remembers) for remembers in (True, False))
    found = [LinearProbe().score(Attacked(state, state), some, []) for state in (hides, honest)]

    assert WeightsOnly().score(Attacked(hides, hides), some, []).auroc == 0.5
    assert found[0].auroc > 0.95
    assert found[0].members.mean() > found[1].members.mean() + 1
    assert abs(found[1].auroc - 0.5) < 0.2


def test_federation_without_a_last_layer_is_read_by_what_it_says(case: Case, told: Tell) -> None:
    some = case.hospitals[0].given.select(np.arange(4))
    state = told({}, {}, 0.25)

    seen = represent(state, case.hospitals[0].name, some)

    assert seen.shape == (4, some.records.num_classes)
    assert np.allclose(np.exp(seen[np.arange(4), some.records.labels]), 0.25)
