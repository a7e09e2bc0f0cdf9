"""Which way gradients take, by guarantee and settings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedmunkey.client.gradient_routes import GradientRoute
from fedmunkey.common.guarantees import Guarantee, Influence
from fedmunkey.common.model import ModelShape
from fedmunkey.common.settings import ExemplarTokens, ImagePath, Settings, TrainedWeights

BLOCKS = ModelShape(ImagePath.PATCHES, (1, 8, 8), 2, num_classes=4, width=16, depth=2, heads=2, exemplar_size=8)
LINEAR = replace(BLOCKS, depth=0)


@pytest.mark.parametrize(
    ("guarantee", "shape", "expected"),
    [
        ("exact", BLOCKS, GradientRoute(True, False, False, False, False, Influence.UNBOUNDED)),
        ("exact", LINEAR, GradientRoute(True, False, False, True, False, Influence.UNBOUNDED)),
        ("certified", BLOCKS, GradientRoute(False, True, False, True, True, Influence.BOUNDED)),
        ("certified", LINEAR, GradientRoute(False, True, False, True, True, Influence.BOUNDED)),
        ("empirical", BLOCKS, GradientRoute(False, False, True, False, False, Influence.UNBOUNDED)),
        ("empirical", LINEAR, GradientRoute(False, False, False, True, True, Influence.UNBOUNDED)),
    ],
)
def test_guarantee_and_depth_choose_the_route(guarantee: str, shape: ModelShape, expected: GradientRoute) -> None:
    assert GradientRoute.of(Settings().replace(guarantee=guarantee), shape) == expected


@pytest.mark.parametrize("guarantee", Guarantee)
@pytest.mark.parametrize("shape", [BLOCKS, LINEAR])
def test_trained_weights_can_be_chosen(guarantee: Guarantee, shape: ModelShape) -> None:
    settings = Settings().replace(guarantee=guarantee)

    chosen = [GradientRoute.of(settings.replace(trained_weights=name), shape) for name in TrainedWeights]

    found = dict(zip(TrainedWeights, chosen, strict=True))
    assert found[TrainedWeights.LINEAR].linear_only
    assert not found[TrainedWeights.ALL].linear_only


@pytest.mark.parametrize("shape", [BLOCKS, LINEAR])
def test_tokens_of_their_own_record_can_be_chosen_without_a_promise(shape: ModelShape) -> None:
    settings = Settings().replace(guarantee="empirical", exemplar_tokens=ExemplarTokens.OWN)

    assert not GradientRoute.of(settings, shape).joint_tokens


@pytest.mark.parametrize("guarantee", [Guarantee.EXACT, Guarantee.CERTIFIED])
@pytest.mark.parametrize("weights", TrainedWeights)
@pytest.mark.parametrize("shape", [BLOCKS, LINEAR])
def test_no_setting_lets_a_record_move_anothers_token_under_a_promise(
    guarantee: Guarantee, weights: TrainedWeights, shape: ModelShape
) -> None:
    settings = Settings().replace(guarantee=guarantee, trained_weights=weights)

    assert not GradientRoute.of(settings, shape).joint_tokens


def test_certified_training_without_noise_bounds_nothing() -> None:
    settings = Settings().replace(guarantee="certified", epsilon=float("inf"))

    assert GradientRoute.of(settings, BLOCKS).influence is Influence.UNBOUNDED
