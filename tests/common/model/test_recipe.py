"""What a federation does, by its settings: everything that they leave to choose is decided in one place."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.model.gradient_routes import ROUTES, Entries, GradientRoute
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.model.recipe import FEW_STEPS, Reading, Recipe
from fedmunkey.common.privacy.guarantees import Guarantee, Influence
from fedmunkey.common.settings.settings import (
    AUTO_DEPTH,
    AggregationName,
    ImagePath,
    ImageShape,
    Settings,
)

ROOT = Path(__file__).resolve().parents[3]
BLOCKS: dict[str, Any] = {"image_path": "patches", "depth": 2}
LINEAR: dict[str, Any] = {"image_path": "frozen", "guarantee": "certified"}


VOTING = Reading(4, AggregationName.ENSEMBLE, 0.02, image_vote=True)


def recipe(**changes: Any) -> Recipe:
    return Recipe.of(Settings().replace(**changes))


@pytest.mark.parametrize(
    ("path", "encoder", "expected"),
    [
        ("auto", "vit_b_16", ImagePath.FROZEN),
        ("auto", "descriptor", ImagePath.PATCHES),
        ("patches", "vit_b_16", ImagePath.PATCHES),
        ("frozen", "descriptor", ImagePath.FROZEN),
    ],
)
def test_auto_takes_the_frozen_path_of_a_pretrained_encoder(path: str, encoder: str, expected: ImagePath) -> None:
    found = recipe(image_path=path, encoder=encoder, image_shape="3x28x28")
    shape = ModelShape.of(found, (2, 512))

    assert shape.image_path is found.image_path is expected
    assert shape.input_shape == ((2, 512) if expected is ImagePath.FROZEN else (3, 28, 28))
    assert (shape.patch_size == 0) is (expected is ImagePath.FROZEN)


@pytest.mark.parametrize(
    ("asked", "path", "expected"),
    [(AUTO_DEPTH, "frozen", 2), (AUTO_DEPTH, "patches", 2), (3, "frozen", 3), (0, "patches", 0)],
)
def test_depth_is_the_asked_or_two_without_a_promise(asked: int, path: str, expected: int) -> None:
    assert recipe(guarantee="empirical", image_path=path, depth=asked).depth == expected
    assert [recipe(guarantee=name, image_path=path, depth=asked).depth for name in ("exact", "certified")] == [0, 0]


@pytest.mark.parametrize(
    ("asked", "path", "expected"),
    [(-1, "frozen", 0), (-1, "patches", 1000), (0, "patches", 0), (7, "frozen", 7)],
)
def test_random_features_are_the_asked_or_those_of_records_without_others(asked: int, path: str, expected: int) -> None:
    assert recipe(image_path=path, random_features=asked).random_features == expected


def test_shape_takes_its_sizes_from_the_settings() -> None:
    shape = ModelShape.of(
        recipe(guarantee="empirical", num_classes=7, width=24, depth=5, heads=3, exemplar_size=9), (16, 12)
    )

    assert (shape.num_classes, shape.width, shape.depth, shape.heads, shape.exemplar_size) == (7, 24, 5, 3, 9)
    assert len(Munkey(shape).blocks) == 5


@pytest.mark.parametrize(("asked", "side", "expected"), [(0, 8, 2), (0, 28, 4), (0, 32, 4), (0, 224, 16), (7, 28, 7)])
def test_patch_size_is_the_asked_or_a_fitting_one(asked: int, side: int, expected: int) -> None:
    found = recipe(guarantee="empirical", patch_size=asked, image_shape=ImageShape((1, side, side)))

    assert found.patch_size == expected
    assert 16 <= Munkey(ModelShape.of(found, (16, 12))).image_tokens <= 200


@pytest.mark.parametrize(("asked", "image"), [(5, (1, 28, 28)), (0, (1, 100, 100)), (4, (1, 28, 30))])
def test_patch_size_that_does_not_divide_the_image_is_refused(asked: int, image: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidSetting, match=rf"patch-size = \d+ does not divide images of {image[1]}x{image[2]}"):
        recipe(patch_size=asked, image_shape=ImageShape(image))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, VOTING),
        ({"image_vote": False}, Reading(4, AggregationName.ENSEMBLE, 0.02, image_vote=False)),
        (
            {"image_path": "patches", "guarantee": "certified"},
            VOTING,
        ),
        ({"image_path": "frozen"}, VOTING),
        (
            {"image_path": "frozen", "guarantee": "empirical"},
            VOTING,
        ),
        (LINEAR, Reading(16, AggregationName.SOFTMAX, 0.02, image_vote=False)),
        ({**LINEAR, "neighbours": 3, "temperature": 1.0}, Reading(3, AggregationName.SOFTMAX, 1.0, image_vote=False)),
        ({**LINEAR, "aggregation": "rank"}, Reading(16, AggregationName.RANK, 0.02, image_vote=True)),
        ({**LINEAR, "aggregation": "softmax"}, Reading(16, AggregationName.SOFTMAX, 0.02, image_vote=True)),
    ],
)
def test_a_linear_function_of_frozen_features_blends_many_entries(changes: dict[str, Any], expected: Reading) -> None:
    assert recipe(**changes).reading == expected


@pytest.mark.parametrize(
    ("changes", "steps", "rate"),
    [
        ({**BLOCKS, "guarantee": "empirical"}, 2 * 7, 2e-3),
        ({**BLOCKS, "guarantee": "empirical", "local_steps": 9}, 9, 2e-3),
        ({**BLOCKS, "guarantee": "certified"}, FEW_STEPS, 16.0),
        ({**LINEAR, "guarantee": "certified", "local_steps": 9}, 9, 16.0),
        ({**LINEAR, "guarantee": "empirical"}, FEW_STEPS, 2e-3),
    ],
)
def test_steps_and_learning_rate_go_with_what_is_trained(changes: dict[str, Any], steps: int, rate: float) -> None:
    found = recipe(batch_size=8, local_epochs=2, **changes)

    assert found.steps_of_round(50) == steps
    assert found.learning_rate == rate


def test_rates_fall_along_a_half_cosine_over_all_rounds() -> None:
    found = recipe(num_rounds=3)

    assert [found.fraction_of_rates(number) for number in (1, 2, 3)] == pytest.approx([1.0, 0.75, 0.25])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"guarantee": "exact"}, "exact"),
        ({"guarantee": "exact", "learns_from": "permanent"}, "exact, permanent"),
        ({"guarantee": "certified"}, "certified"),
        ({"guarantee": "empirical"}, "empirical, joint tokens"),
        ({"guarantee": "empirical", "exemplar_tokens": "own"}, "empirical"),
        ({"guarantee": "empirical", "learns_from": "permanent"}, "empirical, joint tokens"),
    ],
)
def test_guarantee_chooses_the_route(changes: dict[str, Any], expected: str) -> None:
    for model in (BLOCKS, {"image_path": "frozen"}):
        assert recipe(**changes, **model).route is ROUTES[expected]


@pytest.mark.parametrize("route", list(ROUTES.values()), ids=lambda route: route.name)
def test_no_route_lets_a_record_move_more_than_its_guarantee_says(route: GradientRoute) -> None:
    guarantee = Guarantee(route.name.partition(",")[0])

    assert route.solved is (guarantee is Guarantee.EXACT)
    assert route.noisy is (guarantee is Guarantee.CERTIFIED)
    assert route.permanent_only is (route.name == "exact, permanent")
    assert route.influence.guarantee is guarantee
    assert guarantee is Guarantee.EMPIRICAL or not (route.joint_tokens or route.reads_memory)
    assert route.is_read in (Entries.ALL, Entries.NONE)


def test_certified_training_without_noise_bounds_nothing() -> None:
    assert recipe(guarantee="certified", epsilon=math.inf).route.influence is Influence.UNBOUNDED


def test_nobody_else_decides_what_the_settings_leave_open() -> None:
    asks = re.compile(r"\b(ImagePath|AggregationName|ExemplarTokens)\.AUTO\b|\bAUTO_DEPTH\b")
    files = [path for top in ("common", "client", "server", "simulations") for path in (ROOT / top).rglob("*.py")]

    found = {path.name for path in files if asks.search(path.read_text())}

    assert found == {"settings.py", "recipe.py"}
