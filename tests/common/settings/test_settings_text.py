"""Settings as people write them."""

from __future__ import annotations

import pytest

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.settings.settings_text import ConfigValue, parse_assignments


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("num-rounds=3", "num-rounds", 3),
        ("learning-rate=2e-3", "learning-rate", 0.002),
        ("image-vote=false", "image-vote", False),
        ("encoder=vit_b_16", "encoder", "vit_b_16"),
        ('sites-dir="my sites"', "sites-dir", "my sites"),
        ("encoder-weights=/a/b=c.pth", "encoder-weights", "/a/b=c.pth"),
        ("image-shape=3x28x28", "image-shape", "3x28x28"),
        ("output-dir=2026-01-01", "output-dir", "2026-01-01"),
        (" device =cpu", "device", "cpu"),
        # No assignment smuggles in another key.
        ("encoder=a\nseed = 3", "encoder", "a\nseed = 3"),
        ("seed=3\nnum-rounds = 3", "seed", "3\nnum-rounds = 3"),
    ],
)
def test_assignments_are_toml_values_or_plain_text_of_which_the_last_counts(
    word: str, key: str, value: ConfigValue
) -> None:
    assert parse_assignments([f"{key}=other", "seed-of-another=1", word]) == {key: value, "seed-of-another": 1}


@pytest.mark.parametrize("word", ["num-rounds", "=3", "", " = 3"])
def test_word_without_key_or_value_is_refused(word: str) -> None:
    with pytest.raises(InvalidSetting, match="is not of the form key=value"):
        parse_assignments([word])
