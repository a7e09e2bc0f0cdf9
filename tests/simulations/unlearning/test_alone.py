"""Hospitals that train alone answer with what each of them has learned by itself."""

from __future__ import annotations

import torch

from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.answers import Answers
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Hospital
from fedmunkey.simulations.unlearning.alone import AloneFamily
from fedmunkey.simulations.unlearning.munkey import MunkeyFamily
from tests.simulations.given_records import case_of, train_rows


def test_each_hospital_is_a_federation_of_one(hospitals: list[Hospital], settings: Settings, shape: ModelShape) -> None:
    case: Case = case_of(hospitals, {"hospital-2": train_rows(hospitals[1])}, settings, shape)
    seen: list[tuple[int, Answers]] = []

    alone = AloneFamily().train(
        case.retained(), settings, shape, after_round=lambda number, answers: seen.append((number, answers))
    )

    assert alone.sites == {"hospital-1", "hospital-3"}
    assert seen == [(settings.num_rounds, alone)]
    asked = hospitals[0].given
    own = MunkeyFamily(settings.guarantee).train({"hospital-3": case.retained()["hospital-3"]}, settings, shape)
    assert torch.equal(alone.answer("hospital-3", asked), own.answer("hospital-3", asked))
    assert torch.equal(alone.weights_alone("hospital-3", asked), own.weights_alone("hospital-3", asked))
    assert not torch.equal(alone.answer("hospital-1", asked), alone.answer("hospital-3", asked))
