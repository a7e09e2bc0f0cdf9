"""MUNKEY's families train what their own guarantee has, whatever the settings' guarantee is."""

from __future__ import annotations

import pytest

from fedmunkey.common.model.model_choice import choose_shape
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.simulations.unlearning.munkey import MunkeyFamily
from tests.simulations.unlearning.small_case import small_case


@pytest.mark.parametrize(("guarantee", "blocks"), [(Guarantee.EMPIRICAL, 2), (Guarantee.CERTIFIED, 0)])
@pytest.mark.parametrize("question", Guarantee)
def test_blocks_are_those_of_the_familys_guarantee(guarantee: Guarantee, blocks: int, question: Guarantee) -> None:
    case = small_case()
    settings = case.settings.replace(guarantee=question.value, depth=-1, num_rounds=1, local_steps=1)

    federation = MunkeyFamily(guarantee).train(case.everything(), settings, choose_shape(settings))

    assert federation.model.shape.depth == blocks
    assert len(getattr(federation.model, "blocks", [])) == blocks
