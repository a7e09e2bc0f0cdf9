"""What all ways to forget that start from a plain transformer have in common."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fedmunkey.simulations.unlearning.method import Budget, Method
from fedmunkey.simulations.unlearning.registry import METHODS
from tests.simulations.unlearning.small_case import same, small_case, trained, weights

PLAIN = [name for name, method in METHODS.items() if method.family.name == "plain-vit"]
DRAWING = {"fine-tuning", "neg-grad-plus", "scrub", "fed-eraser", "rapid-retraining", "checkpoint", "retraining"}


@pytest.mark.parametrize("name", PLAIN)
def test_same_seed_gives_the_same_weights_and_leaves_the_trained_ones_alone(name: str) -> None:
    method: Method[Any] = METHODS[name]
    before, case = weights(trained()), small_case()
    quick = replace(case, settings=case.settings.replace(local_epochs=1, num_rounds=2))

    first, second = (weights(method.forget(trained(), quick, Budget(1)).answers) for _ in range(2))
    other = weights(method.forget(trained(), quick.with_seed(4), Budget(1)).answers)

    assert same(first, second)
    assert same(first, other) is (name not in DRAWING)
    assert same(weights(trained()), before)
    assert all(weight.requires_grad for weight in trained().model.parameters())
