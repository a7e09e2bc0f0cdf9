from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from fedmunkey.common.errors import CardMismatch, InvalidInput
from fedmunkey.common.model.encoders.descriptor import DescriptorEncoder
from fedmunkey.common.model.federation_card import FederationCard, agreed_settings, changes
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import Settings

FACTS = DescriptorEncoder(1).facts


def card_of(classes: tuple[str, ...] = ("benign", "malignant"), **changes: Any) -> FederationCard:
    settings = Settings().replace(image_shape="1x28x28", num_classes=max(len(classes), 2), **changes)
    made = datetime(2026, 11, 27, tzinfo=UTC)
    return FederationCard("fed", 1, "", "", made, classes, FACTS, agreed_settings(settings))


@pytest.mark.parametrize("guarantee", Guarantee)
def test_card_can_be_made_under_each_guarantee_and_agrees_with_what_it_was_made_of(guarantee: Guarantee) -> None:
    settings = Settings().replace(image_shape="1x28x28", num_classes=2, guarantee=guarantee.value)

    card_of(guarantee=guarantee.value).check_settings(settings, "the run", "")


@pytest.mark.parametrize(
    "spelling",
    [
        {"image_path": "patches"},
        {"patch_size": 4},
        {"neighbours": 4},
        {"random_features": 1000},
        {"encoder_size": 0},
        {"depth": 3, "width": 128, "epsilon": 1.0},
        {"seed": 7, "num_rounds": 3, "min_sites": 5, "device": "cpu", "learning_rate": 0.1, "strategy": "fedadam"},
    ],
)
def test_what_means_the_same_or_matters_to_nobody_else_agrees(spelling: dict[str, Any]) -> None:
    settings = Settings().replace(image_shape="1x28x28", num_classes=2, **spelling)

    card_of().check_settings(settings, "the run", "")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"image_shape": "3x28x28"}, "image-shape is 3x28x28, the card has 1x28x28"),
        ({"num_classes": 3}, "num-classes is 3, the card has 2"),
        ({"encoder_mirror": False}, "encoder-mirror is false, the card has true"),
        ({"encoder_pooling": "grid"}, "encoder-pooling is grid, the card has auto"),
        ({"encoder": "squeezenet1_0"}, "encoder is squeezenet1_0, the card has descriptor"),
        ({"guarantee": "empirical"}, "guarantee is empirical, the card has exact"),
        ({"image_path": "frozen"}, "image-path is frozen, the card has patches"),
        ({"learns_from": "permanent"}, "learns-from is permanent, the card has all"),
        ({"renew_within": 0.5}, "renew-within is 0.5, the card has 7"),
        ({"encoder_size": 64}, "encoder-size is 64, the card has 0"),
    ],
)
def test_each_field_that_differs_is_named_with_both_values(other: dict[str, Any], said: str) -> None:
    settings = Settings().replace(**{"image_shape": "1x28x28", "num_classes": 2, **other})

    with pytest.raises(CardMismatch) as refused:
        card_of().check_settings(settings, "the run", "leave it out")

    assert said in str(refused.value)
    assert str(refused.value).startswith("the run differs from the federation card (version 1): ")
    assert str(refused.value).endswith("; leave it out")
    assert "\n" not in str(refused.value)


def test_unbounded_epsilon_is_a_value_like_another() -> None:
    card = card_of(guarantee="certified", epsilon=float("inf"))

    assert card.fields()["epsilon"] == "inf"
    card.check_settings(Settings.parse(card.settings), "the run", "")


def test_settings_that_nobody_gave_are_the_cards() -> None:
    card = card_of(renew_within=3.0)

    over = Settings.parse(card.over({"seed": 5, "encoder-size": 0, "device": "cpu"}))

    assert (over.renew_within, over.seed, str(over.image_shape)) == (3.0, 5, "1x28x28")
    assert Settings.parse(card.over({"renew-within": 9.0})).renew_within == 9.0


@pytest.mark.parametrize(
    "classes", [(), ("a", "A"), ("a", " a"), ("", "b"), ("a\nb", "c"), ("a, b", "c"), ("x" * 101, "c")]
)
def test_classes_that_cannot_be_told_apart_or_shown_make_no_card(classes: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput):
        card_of(classes)


def test_card_contradicts_itself_in_nothing() -> None:
    card = card_of()

    for change in ({"encoder": "resnet18"}, {"num-classes": 3}, {"encoder-size": 7}, {"no-such-setting": 1}):
        with pytest.raises(InvalidInput):
            replace(card, settings={**card.settings, **change})


def test_changes_are_all_fields_that_two_versions_say_otherwise() -> None:
    before, after = card_of(), card_of(("benign", "malignant", "other"), guarantee="empirical")

    found = changes(before, after)

    assert found["classes"] == ("benign, malignant", "benign, malignant, other")
    assert found["learns-from"] == ("all", "")
    assert found["width"] == ("", "64")
    assert "encoder" not in found
