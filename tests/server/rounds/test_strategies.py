"""Every strategy that the settings name, and how metrics are averaged."""

from __future__ import annotations

import math
from typing import Any, cast
from unittest.mock import create_autospec

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedMedian, FedProx, FedTrimmedAvg, FedYogi

from fedmunkey.common.programs.round_messages import ARRAYS, CONFIG, METRICS, ROUND
from fedmunkey.common.settings.settings import Settings, StrategyName
from fedmunkey.server.rounds.strategies import average_by_examples, average_over_sites, make_strategy

CLASSES = (FedAvg, FedAvgM, FedProx, FedAdam, FedAdagrad, FedYogi, FedMedian, FedTrimmedAvg)
"""In the order of `StrategyName`."""


@pytest.fixture
def grid(within_a_run: None) -> Grid:
    """Three nodes; messages are made as within a run."""
    del within_a_run
    grid = create_autospec(Grid, instance=True)
    grid.get_node_ids.return_value = [11, 12, 13]
    return cast(Grid, grid)


def make(name: StrategyName, **changes: Any) -> FedAvg:
    strategy = make_strategy(Settings(strategy=name).replace(**changes))
    assert isinstance(strategy, FedAvg)
    return strategy


def reply(message: Message, value: float, examples: int) -> Message:
    arrays = ArrayRecord({"weight": Array(np.full(2, value, dtype=np.float32))})
    metrics = MetricRecord({"num-examples": examples, "train-loss": value})
    return Message(content=RecordDict({ARRAYS: arrays, METRICS: metrics}), reply_to=message)


def contents(*records: dict[str, float]) -> list[RecordDict]:
    return [RecordDict({METRICS: MetricRecord(dict(record))}) for record in records]


@pytest.mark.parametrize(("name", "kind"), list(zip(StrategyName, CLASSES, strict=True)))
def test_every_name_makes_the_flower_strategy_of_that_name_which_samples_as_the_settings_say(
    name: StrategyName, kind: type[FedAvg]
) -> None:
    strategy = make(name, fraction_train=0.5, fraction_evaluate=0.25, min_sites=7)

    assert type(strategy) is kind
    assert (strategy.fraction_train, strategy.fraction_evaluate) == (0.5, 0.25)
    assert strategy.min_available_nodes == 7
    assert (strategy.min_train_nodes, strategy.min_evaluate_nodes) == (1, 1)


def test_server_learning_rate_is_the_step_of_adaptive_strategies_and_fedavgm_takes_whole_steps() -> None:
    for name in (StrategyName.FEDADAM, StrategyName.FEDADAGRAD, StrategyName.FEDYOGI):
        assert cast(FedAdam, make(name, server_learning_rate=0.3)).eta == 0.3
    averaging = cast(FedAvgM, make(StrategyName.FEDAVGM, server_learning_rate=0.3))
    assert (averaging.server_learning_rate, averaging.server_momentum) == (1.0, 0.9)


def test_sites_are_told_the_weight_of_the_proximal_term(grid: Grid) -> None:
    strategy = make(StrategyName.FEDPROX, proximal_mu=0.5)

    messages = strategy.configure_train(1, ArrayRecord(), ConfigRecord(), grid)

    assert [message.content.config_records[CONFIG]["proximal-mu"] for message in messages] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("name", StrategyName)
def test_every_strategy_keeps_names_and_shapes_of_the_weights(grid: Grid, name: StrategyName) -> None:
    strategy = make(name)
    arrays = ArrayRecord({"weight": Array(np.zeros(2, dtype=np.float32))})

    losses = []
    for number in (1, 2):
        messages = list(strategy.configure_train(number, arrays, ConfigRecord(), grid))
        replies = [reply(message, value, 10) for message, value in zip(messages, (0.5, 1.0, 3.0), strict=True)]
        averaged, metrics = strategy.aggregate_train(number, replies)
        assert averaged is not None
        assert metrics is not None
        arrays = averaged
        losses.append(metrics["train-loss"])

    assert [message.content.config_records[CONFIG][ROUND] for message in messages] == [2, 2, 2]
    weight = arrays["weight"].numpy()
    assert (list(arrays), weight.shape) == (["weight"], (2,))
    assert 0 < weight[0] < 5
    assert losses == [pytest.approx(1.5)] * 2


def test_weights_are_averaged_by_examples(grid: Grid) -> None:
    strategy = make(StrategyName.FEDAVG)
    messages = list(strategy.configure_train(1, ArrayRecord(), ConfigRecord(), grid))

    averaged, _ = strategy.aggregate_train(1, [reply(messages[0], 1.0, 30), reply(messages[1], 5.0, 10)])

    assert averaged is not None
    assert averaged["weight"].numpy().tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("average", "examples", "expected"),
    [(average_by_examples, 30, 2.0), (average_by_examples, 0, 5.0), (average_over_sites, 30, 3.0)],
)
def test_training_metrics_are_weighted_by_examples_and_hospitals_count_equally_in_evaluation(
    average: Any, examples: int, expected: float
) -> None:
    replies = contents({"num-examples": examples, "loss": 1.0}, {"num-examples": 10, "loss": 5.0})

    assert average(replies, "num-examples")["loss"] == expected


@pytest.mark.parametrize("average", [average_by_examples, average_over_sites])
def test_what_is_not_a_number_is_left_out(average: Any) -> None:
    first = {"num-examples": 10, "loss": 1.0, "f1": math.nan}
    replies = contents(first, {"num-examples": 5, "loss": math.nan, "f1": math.nan})

    averaged = average(replies, "num-examples")

    assert averaged["loss"] == 1.0
    assert "f1" not in averaged


def test_metric_is_averaged_over_the_sites_that_tell_it() -> None:
    replies = contents({"num-examples": 10}, {"num-examples": 30, "test-accuracy": 0.5}, {"test-accuracy": 1.0})

    assert dict(average_over_sites(replies, "")) == {"num-examples": 20.0, "test-accuracy": 0.75}
