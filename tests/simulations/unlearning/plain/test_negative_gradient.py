"""NegGrad+ raises the loss on what is forgotten, and not that on the rest."""

from __future__ import annotations

import math

import pytest
import torch

from fedmunkey.simulations.unlearning.method import weights_bytes
from fedmunkey.simulations.unlearning.plain.negative_gradient import CEILING, NegativeGradient, neg_grad_plus
from tests.simulations.unlearning.small_case import BUDGET, accuracy, loss, small_case, trained


def test_no_loss_is_raised_above_the_ceiling() -> None:
    forgotten = torch.tensor([0.5, 2.5], requires_grad=True)

    neg_grad_plus(torch.ones(2), forgotten, alpha=0.9, ceiling=2.0).backward()

    assert forgotten.grad is not None
    assert forgotten.grad.tolist() == pytest.approx([-0.05, 0.0])


@pytest.mark.parametrize(
    ("retained", "forgotten", "expected"),
    [
        # 0.9 * (1 + 3) / 2 - 0.1 * (0.5 + 0.7 + 1.8) / 3, as in the paper; a part without records counts as nothing.
        ([1.0, 3.0], [0.5, 0.7, 1.8], 1.7),
        ([], [2.0], -0.2),
        ([2.0], [], 1.8),
        ([], [], 0.0),
    ],
)
def test_loss_is_that_of_the_paper(retained: list[float], forgotten: list[float], expected: float) -> None:
    found = neg_grad_plus(torch.tensor(retained), torch.tensor(forgotten), alpha=0.9, ceiling=5.0)

    assert found.item() == pytest.approx(expected)


def test_forgotten_loss_rises_with_a_smaller_weight_of_the_retained_loss_and_retained_accuracy_stays() -> None:
    case = small_case()

    done = NegativeGradient(alpha=0.9).forget(trained(), case, BUDGET)
    weaker = NegativeGradient(alpha=1.0).forget(trained(), case, BUDGET).answers

    after = done.answers
    assert loss(weaker, case.forget_records()) <= loss(after, case.forget_records())
    assert loss(after, case.forget_records()) > 3 * loss(trained(), case.forget_records())
    assert loss(after, case.retained()) < loss(after, case.forget_records()) / 3
    assert accuracy(after, case.retained()) >= accuracy(trained(), case.retained()) - 0.05
    assert done.bytes_sent == 2 * BUDGET.rounds * 3 * weights_bytes(trained().model)


def test_forgetting_a_whole_hospital_does_not_blow_up() -> None:
    case = small_case(whole_site=True)

    done = NegativeGradient().forget(trained(), case, BUDGET)

    assert loss(trained(), case.forget_records()) < loss(done.answers, case.forget_records())
    assert loss(done.answers, case.forget_records()) < 2 * CEILING * math.log(case.shape.num_classes)
    assert accuracy(done.answers, case.retained()) >= accuracy(trained(), case.retained()) - 0.15
    assert len(done.answers.sites) == 2
    # The hospital that leaves has its part in raising the loss.
    assert done.bytes_sent == 2 * BUDGET.rounds * 3 * weights_bytes(trained().model)
