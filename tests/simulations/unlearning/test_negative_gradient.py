"""NegGrad+ raises the loss on what is forgotten, and not that on the rest."""

from __future__ import annotations

import math

import pytest
import torch

from fedmunkey.simulations.unlearning.method import weights_bytes
from fedmunkey.simulations.unlearning.negative_gradient import CEILING, NegativeGradient, neg_grad_plus
from tests.simulations.unlearning.small_case import (
    BUDGET,
    accuracy,
    forget,
    loss,
    small_case,
    trained,
)

STRONG = NegativeGradient(0.9)


def test_loss_is_that_of_the_paper() -> None:
    retained, forgotten = torch.tensor([1.0, 3.0]), torch.tensor([0.5, 0.7, 1.8])

    # 0.9 * (1 + 3) / 2 - 0.1 * (0.5 + 0.7 + 1.8) / 3
    assert neg_grad_plus(retained, forgotten, alpha=0.9, ceiling=2.0).item() == pytest.approx(1.7)


def test_no_loss_is_raised_above_the_ceiling() -> None:
    forgotten = torch.tensor([0.5, 2.5], requires_grad=True)

    neg_grad_plus(torch.ones(2), forgotten, alpha=0.9, ceiling=2.0).backward()

    assert forgotten.grad is not None
    assert forgotten.grad.tolist() == pytest.approx([-0.05, 0.0])


@pytest.mark.parametrize(("retained", "forgotten", "expected"), [([], [2.0], -0.2), ([2.0], [], 1.8), ([], [], 0.0)])
def test_part_without_records_counts_as_nothing(retained: list[float], forgotten: list[float], expected: float) -> None:
    found = neg_grad_plus(torch.tensor(retained), torch.tensor(forgotten), alpha=0.9, ceiling=5.0)

    assert found.item() == pytest.approx(expected)


def test_forgotten_loss_rises_and_retained_accuracy_stays() -> None:
    case = small_case()

    after = forget(STRONG, case)

    assert loss(after, case.forget_records()) > 3 * loss(trained(), case.forget_records())
    assert loss(after, case.retained()) < loss(after, case.forget_records()) / 3
    assert accuracy(after, case.retained()) >= accuracy(trained(), case.retained()) - 0.05


def test_smaller_weight_of_the_retained_loss_forgets_more() -> None:
    case = small_case()

    losses = [loss(forget(NegativeGradient(alpha), case), case.forget_records()) for alpha in (1.0, 0.9)]

    assert losses == sorted(losses)


def test_forgetting_a_whole_hospital_does_not_blow_up() -> None:
    case = small_case(whole_site=True)

    done = NegativeGradient().forget(trained(), case, BUDGET)

    assert loss(trained(), case.forget_records()) < loss(done.answers, case.forget_records())
    assert loss(done.answers, case.forget_records()) < 2 * CEILING * math.log(case.shape.num_classes)
    assert accuracy(done.answers, case.retained()) >= accuracy(trained(), case.retained()) - 0.15
    assert len(done.answers.sites) == 2


@pytest.mark.parametrize("whole_site", [False, True])
def test_weights_go_to_and_from_every_hospital(whole_site: bool) -> None:
    done = STRONG.forget(trained(), small_case(whole_site=whole_site), BUDGET)

    assert done.bytes_sent == 2 * BUDGET.rounds * 3 * weights_bytes(trained().model)
