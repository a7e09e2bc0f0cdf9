"""What is read of a record is whole, small, the same beside any other record, and the same in every version."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedmunkey.common.closed_form import feature_map
from fedmunkey.common.closed_form.feature_map import (
    CONSTANT,
    KERNEL_WIDTH,
    SCALE,
    FeatureMap,
    Numbers,
    random_features,
)
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.settings.settings import Settings

BOTH = FeatureMap((4, 6), 50)
Floats = NDArray[np.float32]


def drawn(count: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Return unit-length keys and features."""
    draw = np.random.default_rng(seed)
    keys = draw.normal(size=(count, 16))
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    return keys.astype(np.float32), draw.normal(3.0, 2.0, (count, 4, 6)).astype(np.float32)


def digest(numbers: Numbers) -> str:
    return hashlib.sha256(numbers.astype("<f8").tobytes()).hexdigest()


@settings(max_examples=20)
@given(count=st.integers(1, 40), seed=st.integers(0, 99), rows=st.lists(st.integers(0, 39), min_size=1, max_size=8))
def test_bits_of_a_record_do_not_depend_on_what_is_read_beside_it(count: int, seed: int, rows: list[int]) -> None:
    keys, features = drawn(count, seed)
    chosen = [row % count for row in rows]

    whole, some = BOTH.read(keys, features), BOTH.read(keys[chosen], features[chosen])

    assert whole[chosen].tobytes() == some.tobytes()


def test_numbers_are_whole_and_no_larger_than_one_and_end_with_the_constant() -> None:
    keys, features = drawn(200)
    features[0] = 1e6 * features[0]
    features[1] = 0.0
    features[2, 0] = [1e4, 0, 0, 0, 0, 0]

    found = BOTH.read(keys, features)

    assert found.shape == (200, BOTH.size)
    assert np.array_equal(found, np.rint(found))
    assert np.abs(found).max() <= SCALE
    assert set(found[:, -1]) == {CONSTANT}
    # A token without any variance is read as nothing.
    assert not found[1, :24].any()
    # Each token has mean 0 and variance 1, and all together length 1.
    assert np.allclose(np.linalg.norm(found[3:, :24], axis=1) / SCALE, 1, atol=1e-2)
    assert np.abs(found[3:, :24].reshape(-1, 4, 6).mean(2)).max() < 1


def test_scale_and_offset_of_a_token_do_not_count() -> None:
    keys, features = drawn(20)

    found = BOTH.read(keys, features)

    assert np.abs(found - BOTH.read(keys, 4 * features + 2)).max() <= 2


def test_products_of_random_features_come_close_to_the_kernel() -> None:
    keys, _ = drawn(60)
    keys[1:20] = keys[0] + 0.1 * keys[1:20]
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    expected = np.exp((keys @ keys.T - 1) / KERNEL_WIDTH)

    errors = {}
    for count in (200, 5000):
        read = random_features(keys, count) / SCALE
        errors[count] = np.sqrt(((read @ read.T - expected) ** 2).mean())

    assert errors[200] < 0.09
    assert errors[5000] < 0.02


def test_known_answers() -> None:
    # A change of any bit would make weights of two versions, or of two machines, differ without a word.
    keys = (np.arange(64, dtype=np.float32).reshape(4, 16) % 7 - 3) / np.float32(8)
    features = (np.arange(96, dtype=np.float32).reshape(4, 4, 6) % 11 - 4) / np.float32(16)

    assert digest(random_features(keys, 50)) == ("4b051345542f1dd30fecee9926e5265ec5681bd8010647b3fe1f66773d2172a5")
    assert digest(BOTH.read(keys, features)) == ("12d035fb23456b5f0ef82a3de7ec634042a4380989e257ed33dbabf0d73eebbf")


def test_long_keys_have_no_random_features() -> None:
    keys = np.zeros((1, 2**16 + 1), dtype=np.float32)

    with pytest.raises(InvalidSetting, match="keys of 65537 numbers have no random features; set random-features = 0"):
        random_features(keys, 1)


def test_projections_of_the_longest_keys_are_exact() -> None:
    # A key of unit length: the sum is largest where all its numbers go along with the frequencies.
    projection, _ = feature_map._projection(2**10, 20)
    along = projection[:, 0] / np.linalg.norm(projection[:, 0])
    whole = np.rint(along * 2.0**14)

    exact = [
        int(number) for number in (whole[:, None].astype(object) * projection.astype(np.int64).astype(object)).sum(0)
    ]

    assert max(map(abs, exact)) < 2**53
    assert (whole @ projection).tolist() == exact


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"image_path": "frozen"}, FeatureMap((4, 6), 0)),
        ({"image_path": "frozen", "random_features": 30}, FeatureMap((4, 6), 30)),
        ({"image_path": "patches"}, FeatureMap((0, 0), 1000)),
        ({"image_path": "patches", "random_features": 0}, FeatureMap((0, 0), 0)),
    ],
)
def test_settings_say_what_is_read(changes: dict[str, object], expected: FeatureMap) -> None:
    recipe = Recipe.of(Settings().replace(**changes))

    found = FeatureMap.of(recipe, ModelShape.of(recipe, (4, 6)))

    assert found == expected
    assert found.read(*drawn(3)).shape == (3, found.size)
