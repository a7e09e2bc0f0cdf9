"""SCRUB's student leaves its teacher on what is forgotten, and stays with it on the rest."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fedmunkey.simulations.federation.answers import Answers
from fedmunkey.simulations.federation.hospitals import Encoded
from fedmunkey.simulations.unlearning.method import Budget, weights_bytes
from fedmunkey.simulations.unlearning.plain.local_epochs import Epoch
from fedmunkey.simulations.unlearning.plain.scrub import Scrub, divergence, has_max_steps
from tests.simulations.unlearning.small_case import BUDGET, accuracy, loss, probabilities, small_case, trained


def logits(*shares: float) -> Tensor:
    return torch.tensor([shares]).log()


def from_teacher(student: Answers, records: dict[str, Encoded]) -> float:
    teacher = probabilities(trained(), records)
    return float((teacher * (teacher / probabilities(student, records)).log()).sum(1).mean())


def test_divergence_is_the_students_from_the_teacher_a_mean_over_records_of_softened_answers() -> None:
    # 0.5 ln(0.5 / 0.25) + 0.5 ln(0.5 / 0.75)
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert divergence(logits(0.5, 0.5), logits(0.25, 0.75), 1.0).item() == pytest.approx(expected)

    teacher = torch.cat([logits(0.5, 0.5), logits(0.2, 0.8)])
    student = torch.cat([logits(1 / 17, 16 / 17), logits(0.2, 0.8)])
    # A temperature of 2 makes 1 : 16 into 1 : 4; the second record's answers are the same.
    expected = 4 * (0.5 * math.log(0.5 / 0.2) + 0.5 * math.log(0.5 / 0.8)) / 2
    assert divergence(teacher, student, 2.0).item() == pytest.approx(expected, rel=1e-5)


def test_no_step_of_the_last_third_goes_up() -> None:
    assert [has_max_steps(Epoch(number, 6)) for number in range(1, 7)] == [True] * 4 + [False] * 2
    assert has_max_steps(Epoch(1, 1))
    assert not has_max_steps(Epoch(2, 2))


def test_student_leaves_its_teacher_on_what_is_forgotten_only() -> None:
    case = small_case()

    done = Scrub().forget(trained(), case, BUDGET)

    student = done.answers
    assert from_teacher(student, case.forget_records()) > 5 * from_teacher(student, case.retained())
    assert from_teacher(student, case.retained()) < 0.2
    assert loss(student, case.forget_records()) > 3 * loss(trained(), case.forget_records())
    assert accuracy(student, case.retained()) >= accuracy(trained(), case.retained()) - 0.05
    assert done.bytes_sent == 2 * BUDGET.rounds * 3 * weights_bytes(trained().model)


def test_hospital_without_anything_left_helps_with_the_max_steps_and_leaves() -> None:
    case = small_case(whole_site=True)
    budget = Budget(3)

    done = Scrub().forget(trained(), case, budget)

    assert loss(done.answers, case.forget_records()) > loss(trained(), case.forget_records())
    # Rounds 1 and 2 of 3 have max steps.
    assert done.bytes_sent == 2 * (3 + 3 + 2) * weights_bytes(trained().model)
    assert len(done.answers.sites) == 2
