"""Second-order steps on quadratic functions by hand, and retraining that sees what is retained only."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Hospital
from fedmunkey.simulations.federation.plain_models import Examples
from fedmunkey.simulations.unlearning.method import Budget, weights_bytes
from fedmunkey.simulations.unlearning.plain.rapid_retraining import Moments, RapidRetraining, newton_step
from fedmunkey.simulations.unlearning.plain.record_gradients import record_gradients
from fedmunkey.simulations.unlearning.plain_federation import PlainFederation, Weights, first_plain
from tests.simulations.given_records import case_of, spoil, train_rows
from tests.simulations.unlearning.small_case import loss, same, weights

BUDGET = Budget(1)

MINIMUM = torch.tensor([1.0, -2.0, 0.5])
CURVATURE = torch.tensor([4.0, 0.25, 9.0])
"""Of the function sum of curvature (w - minimum)^2 / 2, whose gradient is curvature (w - minimum)."""


@pytest.fixture
def case(hospitals: list[Hospital], settings: Settings, shape: ModelShape) -> Case:
    """Forget every third training record of the first hospital, and all of the second."""
    rows = {"hospital-1": train_rows(hospitals[0])[::3], "hospital-2": train_rows(hospitals[1])}
    return case_of(hospitals, rows, settings.replace(num_rounds=4), shape)


@pytest.fixture
def trained(case: Case) -> PlainFederation:
    return PlainFederation(first_plain(case.shape, seed=9), frozenset(h.name for h in case.hospitals))


def forget(trained: PlainFederation, case: Case) -> Weights:
    return weights(RapidRetraining().forget(trained, case, BUDGET).answers)


@pytest.mark.parametrize(
    ("rate", "power", "damping"), [(1.0, 1.0, 0.0), (0.5, 0.5, 1.0), (0.5, 1.0, 1.0)], ids=["all", "root", "damped"]
)
def test_step_without_momentum_goes_a_known_share_of_the_way_to_the_minimum_of_a_separable_quadratic(
    rate: float, power: float, damping: float
) -> None:
    start = {"w": torch.tensor([3.0, 3.0, 3.0])}
    gradient = {"w": CURVATURE * (start["w"] - MINIMUM)}
    how = {"rate": rate, "betas": (0, 0), "power": power, "damping": damping}

    after, _ = newton_step(start, gradient, {"w": CURVATURE}, Moments.none(start), **how)  # type: ignore[arg-type]

    left = 1 - rate * CURVATURE / (CURVATURE**power + damping)
    assert torch.allclose(after["w"], MINIMUM + left * (start["w"] - MINIMUM))


def test_moments_are_weighted_means_without_the_zeros_from_which_they_begin() -> None:
    weights = {"w": torch.zeros(1)}
    first = {"w": torch.tensor([2.0])}, {"w": torch.tensor([3.0])}
    second = {"w": torch.tensor([4.0])}, {"w": torch.tensor([1.0])}

    after, moments = newton_step(weights, *first, Moments.none(weights), rate=1.0, betas=(0.5, 0.5), power=1, damping=0)
    assert float(after["w"]) == pytest.approx(-2 / 3)

    again, moments = newton_step(after, *second, moments, rate=1.0, betas=(0.5, 0.5), power=1, damping=0)
    # (2 + 2 * 4) / 3 for the gradient and the root of (9 + 2 * 1) / 3 for the curvature.
    assert float(again["w"] - after["w"]) == pytest.approx(-(10 / 3) / (11 / 3) ** 0.5)
    assert moments.steps == 2


def test_gradients_of_records_are_those_of_batches_of_one(case: Case) -> None:
    model = first_plain(case.shape, seed=1)
    some = case.everything()["hospital-1"].select(np.arange(3))
    inputs, labels = some.inputs(case.shape), torch.from_numpy(some.records.labels)

    each = record_gradients(model, dict(model.state_dict()), Examples(inputs, labels), 0.1)

    for row in range(3):
        model.zero_grad()
        F.cross_entropy(model(inputs[row, None]), labels[row, None], label_smoothing=0.1).backward()
        for name, weight in model.named_parameters():
            assert weight.grad is not None
            assert torch.allclose(each[name][row], weight.grad, atol=1e-6)


def test_forgotten_records_have_no_influence(case: Case, trained: PlainFederation) -> None:
    first, *others = case.hospitals
    gone, kept = (
        dataclasses.replace(case, hospitals=[spoil(first, case.forgotten[first.name] + shift), *others])
        for shift in (0, 1)
    )

    clean = forget(trained, case)
    assert same(clean, forget(trained, gone))
    assert not same(clean, forget(trained, kept))


def test_half_of_the_rounds_and_only_hospitals_that_retain_something_are_counted(
    case: Case, trained: PlainFederation
) -> None:
    forgotten = RapidRetraining().forget(trained, case, BUDGET)

    assert forgotten.answers.sites == {"hospital-1", "hospital-3"}
    assert forgotten.bytes_sent == 2 * weights_bytes(trained.model) * 2 * 2


def test_weights_do_not_depend_on_what_was_trained_and_lower_the_loss_on_what_is_retained(
    case: Case, trained: PlainFederation
) -> None:
    other = PlainFederation(first_plain(case.shape, seed=10), trained.sites)
    first = PlainFederation(first_plain(case.shape, case.settings.seed), trained.sites)
    retained = {"hospital-3": case.retained()["hospital-3"]}

    answers = RapidRetraining().forget(trained, case, BUDGET).answers

    assert same(weights(answers), forget(other, case))
    assert loss(answers, retained) < loss(first, retained) - 0.1
