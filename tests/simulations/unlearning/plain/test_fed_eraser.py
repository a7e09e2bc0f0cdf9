"""FedEraser takes lengths from kept updates and directions from what is retained."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Hospital
from fedmunkey.simulations.unlearning.method import Budget, weights_bytes
from fedmunkey.simulations.unlearning.plain.fed_eraser import FedEraser, calibrate
from fedmunkey.simulations.unlearning.plain_federation import PlainFederation, Weights
from tests.simulations.given_records import case_of, spoil, train_rows
from tests.simulations.unlearning.small_case import same, weights

BUDGET = Budget(1)


@pytest.fixture
def case(hospitals: list[Hospital], settings: Settings, shape: ModelShape) -> Case:
    return case_of(hospitals, {"hospital-1": train_rows(hospitals[0])[:2]}, settings, shape)


@pytest.fixture
def trained(case: Case) -> PlainFederation:
    return FedEraser().family.train(case.everything(), case.settings, case.shape)


def forget(trained: PlainFederation, case: Case) -> Weights:
    return weights(FedEraser().forget(trained, case, BUDGET).answers)


def test_calibrated_update_has_the_old_length_and_the_new_direction() -> None:
    old = {"a": torch.tensor([6.0]), "b": torch.tensor([[0.0, -8.0]])}
    new = {"a": torch.tensor([0.0]), "b": torch.tensor([[0.3, 0.4]])}

    update = calibrate(old, new)

    # Lengths are 10 and 0.5, over both weights together.
    assert update["a"].tolist() == [0.0]
    assert torch.allclose(update["b"], torch.tensor([[6.0, 8.0]]))
    # Without a direction it stays zero.
    assert calibrate({"a": torch.ones(2)}, {"a": torch.zeros(2)})["a"].tolist() == [0.0, 0.0]


def test_erased_hospital_has_no_influence(hospitals: list[Hospital], settings: Settings, shape: ModelShape) -> None:
    case = case_of(hospitals, {"hospital-2": train_rows(hospitals[1])}, settings, shape)
    trained = FedEraser().family.train(case.everything(), settings, shape)
    gone, stays = (
        dataclasses.replace(case, hospitals=[spoil(h, train_rows(h)) if h.name == name else h for h in hospitals])
        for name in ("hospital-2", "hospital-3")
    )
    zeros = {name: torch.zeros_like(weight) for name, weight in trained.model.state_dict().items()}
    kept = [dataclasses.replace(r, sent={**r.sent, "hospital-2": zeros}) for r in trained.rounds]

    clean = forget(trained, case)
    assert FedEraser().forget(trained, case, BUDGET).answers.sites == {"hospital-1", "hospital-3"}
    assert same(clean, forget(dataclasses.replace(trained, rounds=tuple(kept)), gone))
    assert not same(clean, forget(trained, stays))


def test_single_round_is_replayed_as_it_was_except_where_something_is_forgotten(
    case: Case, trained: PlainFederation
) -> None:
    first = trained.rounds[0]
    one = dataclasses.replace(trained, rounds=(first,))

    again = forget(one, case)

    counts = {name: len(some.records) for name, some in case.retained().items()}
    old = {site: {name: sent[name] - first.before[name] for name in again} for site, sent in first.sent.items()}
    # Two updates are known as they were kept; what is left over is the third.
    third = {
        name: (again[name] - first.before[name]) * sum(counts.values())
        - sum((old[site][name] * counts[site] for site in ("hospital-2", "hospital-3")), torch.zeros(()))
        for name in again
    }
    lengths = [torch.cat([part.flatten() for part in update.values()]).norm() for update in (third, old["hospital-1"])]
    assert float(lengths[0]) / counts["hospital-1"] == pytest.approx(float(lengths[1]), rel=1e-3)
    assert not torch.allclose(third["head.weight"] / counts["hospital-1"], old["hospital-1"]["head.weight"], atol=1e-4)


def test_every_second_round_is_replayed_and_what_was_sent_is_counted(case: Case, trained: PlainFederation) -> None:
    first, second, third = trained.rounds
    without_second = [first, dataclasses.replace(second, sent={name: {} for name in second.sent}), third]

    forgotten = FedEraser().forget(trained, case, BUDGET)
    blind = forget(dataclasses.replace(trained, rounds=tuple(without_second)), case)

    assert same(weights(forgotten.answers), blind)
    # Round 1 asks the hospital that forgets, and round 3 all three.
    assert forgotten.bytes_sent == 2 * weights_bytes(trained.model) * (1 + 3)


def test_federation_without_its_rounds_is_refused(case: Case, trained: PlainFederation) -> None:
    with pytest.raises(ValueError, match="needs the rounds that the server received"):
        FedEraser().forget(dataclasses.replace(trained, rounds=()), case, BUDGET)
