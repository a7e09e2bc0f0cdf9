from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedmunkey.common.errors import FedmunkeyError, InvalidSetting
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import (
    AggregationName,
    DeviceName,
    ImagePath,
    ImageShape,
    Settings,
    StrategyName,
)

settings_strategy = st.builds(
    Settings,
    seed=st.integers(0, 2**31 - 1),
    epsilon=st.floats(0, exclude_min=True),
    strategy=st.sampled_from(StrategyName),
    fraction_train=st.floats(0, 1, exclude_min=True),
    image_shape=st.tuples(st.sampled_from([1, 3]), st.integers(1, 512), st.integers(1, 512)).map(ImageShape),
    image_path=st.sampled_from(ImagePath),
    encoder_weights=st.text(),
    aggregation=st.sampled_from(AggregationName),
    temperature=st.floats(1e-6, 100),
    image_vote=st.booleans(),
    device=st.sampled_from(DeviceName),
    heads=st.sampled_from([1, 2, 4, 8]),
)


@given(settings=settings_strategy)
def test_settings_survive_the_flat_configuration(settings: Settings) -> None:
    assert Settings.parse(settings.to_config()) == settings


def test_configuration_is_flat_and_holds_what_flower_carries() -> None:
    config = Settings().to_config()

    assert list(config) == Settings.keys()
    # Exact types, because Flower's configuration records refuse subclasses such as enums.
    assert {type(value) for value in config.values()} <= {bool, int, float, str}
    assert all(key == key.lower() and "_" not in key for key in config)


def test_nothing_given_means_the_defaults_of_which_the_guarantee_is_the_strongest() -> None:
    assert Settings.parse({}) == Settings()
    assert Settings().guarantee is Guarantee.EXACT


def test_values_of_a_command_line_are_read_as_their_types() -> None:
    settings = Settings.parse({"num-rounds": "4", "learning-rate": 1, "strategy": "fedprox", "image-vote": "false"})

    assert (settings.num_rounds, settings.learning_rate, settings.image_vote) == (4, 1.0, False)
    assert settings.strategy is StrategyName.FEDPROX


@pytest.mark.parametrize(("guarantee", "usual"), [("exact", 1), ("certified", 20), ("empirical", 20)])
def test_no_number_of_rounds_chooses_one_where_weights_are_solved_for(guarantee: str, usual: int) -> None:
    assert Settings.parse({"guarantee": guarantee}).rounds == usual
    assert Settings.parse({"guarantee": guarantee, "num-rounds": 3}).rounds == 3


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().seed = 3  # type: ignore[misc]


def test_replace_changes_some_fields_and_checks_them() -> None:
    settings = Settings(seed=5)
    changed = settings.replace(num_rounds=2, image_shape=ImageShape((3, 28, 28)), device=DeviceName.CPU)

    assert (changed.seed, changed.num_rounds, changed.image_shape) == (5, 2, (3, 28, 28))
    assert settings.num_rounds == Settings().num_rounds
    with pytest.raises(InvalidSetting, match=r"^num-rounds = -1: "):
        settings.replace(num_rounds=-1)
    with pytest.raises(InvalidSetting, match=r"^unknown setting num-round: did you mean num-rounds\?$"):
        settings.replace(num_round=3)


JOINT_TOKENS = "exemplar-tokens = joint: guarantee ="
OWN_TOKENS = "tokens of their own record only; set own or auto"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num-round": 3}, "unknown setting num-round: did you mean num-rounds?"),
        ({"learning_rates": 3}, "unknown setting learning_rates: did you mean learning-rate?"),
        ({"qqq": 3}, "unknown setting qqq: see docs/settings.md for all settings"),
        ({"num-rounds": -1}, "num-rounds = -1: should be greater than or equal to 0"),
        ({"num-rounds": "many"}, "num-rounds = many: should be a valid integer"),
        ({"num-rounds": 2.5}, "num-rounds = 2.5: should be a valid integer"),
        ({"encoder": 3}, "encoder = 3: should be a valid string"),
        ({"image-vote": "maybe"}, "image-vote = maybe: should be a valid boolean"),
        ({"strategy": "fedsgd"}, "strategy = fedsgd: should be 'fedavg', 'fedavgm'"),
        ({"deletion-service": "localhost"}, "deletion-service = localhost: must be host:port, such as 127.0.0.1:9440"),
        ({"image-shape": "28x28"}, "image-shape = 28x28: must be channels x height x width with 1 or 3 channels"),
        ({"width": 30, "heads": 4}, "width = 30 is not a multiple of heads = 4; change one of them"),
        ({"guarantee": "exact", "exemplar-tokens": "joint"}, f"{JOINT_TOKENS} exact needs {OWN_TOKENS}"),
        ({"guarantee": "certified", "exemplar-tokens": "joint"}, f"{JOINT_TOKENS} certified needs {OWN_TOKENS}"),
        ({"epsilon": 0}, "epsilon = 0: should be greater than 0"),
        ({"delta": 1}, "delta = 1: should be less than 1"),
        ({"sampling-rate": 0}, "sampling-rate = 0: should be greater than 0"),
        ({"random-features": -2}, "random-features = -2: should be greater than or equal to -1"),
        ({"random-features": 10_001}, "random-features = 10001: should be less than or equal to 10000"),
        ({"learns-from": "revocable"}, "learns-from = revocable: should be 'all' or 'permanent'"),
        ({"absent-sites": "wait"}, "absent-sites = wait: should be 'leave-out' or 'stop'"),
        ({"trained-weights": "all"}, "trained-weights is no setting any more: what is trained follows from guarantee"),
        ({"fewest-permanent": 50}, "fewest-permanent is no setting any more: under exact records of any consent teach"),
        ({"linear-learning-rate": 1}, "linear-learning-rate is no setting any more: exact weights are solved for"),
        ({"empirical-sampling-rate": 1}, "empirical-sampling-rate is no setting any more: empirical training takes"),
        ({"guarantee": "none"}, "guarantee = none: should be 'exact', 'certified' or 'empirical'"),
    ],
)
def test_error_names_key_value_and_way_out_in_one_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        Settings.parse(config)

    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


values = st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.integers(), max_size=3))


@given(config=st.dictionaries(st.one_of(st.sampled_from(Settings.keys()), st.text()), values, max_size=4))
def test_any_configuration_is_read_or_refused_in_one_line(config: dict[str, Any]) -> None:
    try:
        settings = Settings.parse(config)
    except FedmunkeyError as error:
        lines = str(error).splitlines()
    else:
        lines = ["accepted"]
        assert Settings.parse(settings.to_config()) == settings
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("seed", 2**31),
        ("num-rounds", 100_001),
        ("fraction-train", 0.0),
        ("fraction-train", 1.01),
        ("fraction-evaluate", -0.1),
        ("num-classes", 1),
        ("neighbours", -1),
        ("neighbours", 65),
        ("temperature", 0.0),
        ("temperature", math.nan),
        ("learning-rate", 0.0),
        ("learning-rate", math.inf),
        ("label-smoothing", 1.0),
        ("image-dropout", 1.0),
        ("memory-dropout", -0.1),
        ("self-retrieval", 1.1),
        ("training-members", 0),
        ("threads", -1),
        ("deletion-patience", -1.0),
    ],
)
def test_value_out_of_range_is_refused(key: str, value: float) -> None:
    with pytest.raises(InvalidSetting, match=rf"^{key} = .+: should be (greater|less) than"):
        Settings.parse({key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fraction-evaluate", 0.0),
        ("self-retrieval", 1.0),
        ("image-dropout", 0.0),
        ("neighbours", 0),
        ("neighbours", 64),
        ("num-rounds", 0),
        ("random-features", -1),
        ("random-features", 10_000),
    ],
)
def test_ends_of_a_range_are_allowed(key: str, value: float) -> None:
    assert Settings.parse({key: value}).to_config()[key] == value


@pytest.mark.parametrize("value", ["3x224x192", "3X224X192", (3, 224, 192), [3, 224, 192]])
def test_image_shape_is_read_from_text_or_numbers(value: object) -> None:
    shape = ImageShape.parse(value)

    assert isinstance(shape, ImageShape)
    assert shape == (3, 224, 192)
    assert str(shape) == "3x224x192"


@pytest.mark.parametrize(
    "value",
    ["", "224x224", "3x224x224x1", "2x8x8", "1x0x8", "1x-8x8", "1xax8", "1x8.5x8", (1, 8.5, 8), (1, 8), 8, None],
)
def test_image_shape_of_anything_else_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="must be channels x height x width with 1 or 3 channels"):
        ImageShape.parse(value)


@pytest.mark.parametrize("value", ["127.0.0.1:9440", "coordinator.example.org:1", "[::1]:65535"])
def test_address_of_the_deletion_service_is_host_and_port(value: str) -> None:
    assert Settings.parse({"deletion-service": value}).deletion_service == value


@pytest.mark.parametrize("value", ["", ":9440", "host:", "host:0", "host:65536", "host:-1", "host:http", "9440"])
def test_address_without_host_or_port_is_refused(value: str) -> None:
    with pytest.raises(InvalidSetting, match="must be host:port"):
        Settings.parse({"deletion-service": value})
