"""Retraining from a checkpoint comes the nearer the oracle the more rounds are taken back."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fedmunkey.simulations.unlearning.method import weights_bytes
from fedmunkey.simulations.unlearning.plain.rewinding import Rewinding
from fedmunkey.simulations.unlearning.plain_federation import LinearFamily, PlainFamily, PlainFederation, Weights
from tests.simulations.unlearning.small_case import BUDGET, forget, same, small_case, trained, weights


def rewound(share: float) -> Rewinding:
    return Rewinding().chosen({"rewound": share})


def oracle() -> PlainFederation:
    case = small_case()
    return PlainFamily().train(case.retained(), case.settings, case.shape)


def distance(left: Weights, right: Weights) -> float:
    return float(torch.cat([(left[name] - right[name]).flatten() for name in left]).norm())


def test_with_all_rounds_taken_back_it_is_the_oracle_to_the_last_bit() -> None:
    assert same(weights(forget(rewound(1.0), small_case())), weights(oracle()))


def test_more_rounds_taken_back_bring_it_nearer_the_oracle_than_doing_nothing() -> None:
    """The paper's property, where the loss is convex: the distance to retraining falls with the steps taken back."""
    case, family = small_case(), LinearFamily()
    federation = family.train(case.everything(), case.settings, case.shape)
    wanted = weights(family.train(case.retained(), case.settings, case.shape))
    methods = [Rewinding(family).chosen({"rewound": share}) for share in (0.34, 0.84)]

    distances = [distance(weights(one.forget(federation, case, BUDGET).answers), wanted) for one in methods]

    assert distance(weights(federation), wanted) > distances[0] > distances[1] > 0


def test_only_the_repeated_rounds_are_sent() -> None:
    done = rewound(0.5).forget(trained(), small_case(whole_site=True), BUDGET)

    assert done.bytes_sent == 2 * weights_bytes(trained().model) * 3 * 2
    assert len(done.answers.sites) == 2


def test_a_linear_model_is_rewound_as_well() -> None:
    case, family = small_case(), LinearFamily()
    federation = family.train(case.everything(), case.settings, case.shape)

    after = Rewinding(family).chosen({"rewound": 1.0}).forget(federation, case, BUDGET).answers

    assert same(weights(after), weights(family.train(case.retained(), case.settings, case.shape)))


def test_federation_without_its_rounds_is_refused() -> None:
    with pytest.raises(ValueError, match="keep them when training"):
        Rewinding().forget(dataclasses.replace(trained(), rounds=()), small_case(), BUDGET)
