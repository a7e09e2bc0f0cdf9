"""What a federation that forgets adds to a Flower strategy."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, MessageType, MetricRecord, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from numpy.typing import NDArray

from fedmunkey.common.errors import FederationStopped, ServiceUnavailable
from fedmunkey.common.model.checkpoints import read_checkpoint
from fedmunkey.common.model.model import Munkey
from fedmunkey.common.programs.round_messages import AGAIN, ARRAYS, CONFIG, ENDS_RUN, METRICS, ROUND, SITE, TAKE_OVER
from fedmunkey.common.settings.settings import StrategyName
from fedmunkey.server.rounds.run_record import LAST
from tests.trained_nodes import NODES, SHAPE, Federation, evaluated, reply, trained, weights

pytestmark = pytest.mark.usefixtures("within_a_run")

Federate = Callable[..., Federation]


@pytest.fixture
def federate(tmp_path: Path) -> Federate:
    numbers = itertools.count()

    def make(
        open_round: Callable[[int], object] = lambda _: None,
        name: StrategyName = StrategyName.FEDAVG,
        rounds: int = 1,
        **changes: Any,
    ) -> Federation:
        return Federation(tmp_path / f"run-{next(numbers)}", open_round, name, rounds=rounds, **changes)

    return make


def failed(message: Message, reason: str | None) -> Message:
    return Message(Error(code=1000, reason=reason), reply_to=message)


def npy_size(array: NDArray[np.float32]) -> int:
    """Return how many bytes an array takes in NumPy's format, in which Flower sends it."""
    file = io.BytesIO()
    np.save(file, array)
    return len(file.getvalue())


def value_of(arrays: ArrayRecord | None) -> float:
    assert arrays is not None
    return float(next(iter(arrays.values())).numpy().flat[0])


def test_round_is_opened_before_any_message_is_made(federate: Federate) -> None:
    asked_when_opened: list[tuple[int, bool]] = []

    def note(number: int) -> None:
        asked_when_opened.append((number, federation.grid.get_node_ids.called))

    federation = federate(note)

    messages = federation.ask(3)

    assert asked_when_opened == [(3, False)]
    assert sorted(messages) == list(NODES.values())


def test_nobody_is_asked_to_train_if_the_round_cannot_be_opened(federate: Federate) -> None:
    def refuse(number: int) -> None:
        raise ServiceUnavailable(f"round {number} cannot be opened")

    federation = federate(refuse)

    with pytest.raises(ServiceUnavailable, match="round 1 cannot be opened"):
        federation.strategy.start(federation.grid, weights(0), num_rounds=3)
    federation.grid.send_and_receive.assert_not_called()
    federation.grid.push_messages.assert_not_called()


def test_average_does_not_depend_on_who_answers_first(federate: Federate) -> None:
    values = {"hospital-1": 1e8, "hospital-2": 1.0, "hospital-3": -1e8}
    averages = set()
    for order in itertools.permutations(values):
        federation = federate()
        messages = federation.ask()
        arrays, _ = federation.strategy.aggregate_train(1, [trained(messages[site], values[site]) for site in order])
        averages.add(value_of(arrays))

    # In single precision the sum of these three depends on their order.
    assert len(averages) == 1


def test_site_without_examples_does_not_count(federate: Federate) -> None:
    federation = federate(name=StrategyName.FEDMEDIAN)
    messages = federation.ask()

    replies = [trained(messages[f"hospital-{n}"], 2.0 * n - 2, examples=10 * (n > 1)) for n in (1, 2, 3)]
    arrays, _ = federation.strategy.aggregate_train(1, replies)

    assert value_of(arrays) == 3.0


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (["no key store", "no key store", "another model"], "no site could train: another model; no key store"),
        ([], "no site could train: no site answered"),
        ([0, 0, 0], "no site has a record left to train on"),
    ],
)
def test_federation_stops_when_no_site_could_train(federate: Federate, answers: list[str | int], reason: str) -> None:
    federation = federate()
    replies = [
        failed(message, answer) if isinstance(answer, str) else trained(message, 1.0, answer)
        for message, answer in zip(federation.ask(4).values(), answers, strict=False)
    ]

    with pytest.raises(FederationStopped) as stopped:
        federation.strategy.aggregate_train(4, replies)

    assert str(stopped.value) == f"round 4: {reason}"


def test_site_that_fails_is_named_with_its_reason_and_the_others_go_on(federate: Federate) -> None:
    federation = federate()
    messages = federation.ask(1)
    federation.strategy.aggregate_train(1, [trained(message, 1.0) for message in messages.values()])
    messages = federation.ask(2)
    replies = [trained(messages[site], 3.0) for site in ("hospital-1", "hospital-3")]

    arrays, _ = federation.strategy.aggregate_train(2, [*replies, failed(messages["hospital-2"], "no key store")])
    federation.strategy.aggregate_evaluate(2, [failed(messages["hospital-3"], None)])

    assert value_of(arrays) == 3.0
    (event,) = federation.events()
    assert event["failures"] == {"hospital-2": "no key store", "hospital-3": "unknown reason"}
    assert sorted(event["training"]) == ["hospital-1", "hospital-3"]


def test_round_is_written_down_with_its_metrics_bytes_time_and_weights(federate: Federate) -> None:
    federation = federate()
    size = sum(npy_size(weight.numpy()) for weight in Munkey(SHAPE).state_dict().values())
    messages = federation.ask(1)
    replies = [trained(messages[site], 2.0) for site in ("hospital-1", "hospital-2")]
    federation.strategy.aggregate_train(1, [*replies, failed(messages["hospital-3"], "no key store")])
    questions = federation.evaluate(1)
    federation.strategy.aggregate_evaluate(
        1, [evaluated(questions[site], accuracy) for site, accuracy in (("hospital-1", 0.5), ("hospital-2", 1.0))]
    )

    (event,) = federation.events()

    assert event["number"] == 1
    assert event["training"]["hospital-2"] == {"num-examples": 10.0, "train-loss": 2.0}
    assert {site: found["test-accuracy"] for site, found in event["evaluation"].items()} == {
        "hospital-1": 0.5,
        "hospital-2": 1.0,
    }
    assert event["mean"]["test-accuracy"] == 0.75
    # Three sites were asked to train and three to evaluate; two sent weights back.
    assert (event["bytes_down"], event["bytes_up"]) == (6 * size, 2 * size)
    assert event["seconds"] == 1.0
    kept = read_checkpoint(federation.folder / LAST, expected=SHAPE).weights
    assert {float(weight.flatten()[0]) for weight in kept.values()} == {2.0}


def test_failures_of_one_round_are_not_those_of_the_next(federate: Federate) -> None:
    federation = federate()
    for number, reason in ((1, "no key store"), (2, None)):
        messages = federation.ask(number)
        replies = [trained(messages["hospital-1"], 1.0)]
        federation.strategy.aggregate_train(
            number, [*replies, failed(messages["hospital-2"], reason)] if reason else replies
        )
        federation.strategy.aggregate_evaluate(number, [evaluated(messages["hospital-1"], 0.5)])

    assert [event["failures"] for event in federation.events()] == [{"node 12": "no key store"}, {}]


@pytest.mark.parametrize("name", StrategyName)
def test_weights_stay_in_the_precision_in_which_sites_have_them(federate: Federate, name: StrategyName) -> None:
    federation = federate(name=name)
    arrays = weights(0)
    for number in (1, 2):
        messages = federation.ask(number, arrays)
        averaged, _ = federation.strategy.aggregate_train(number, [trained(m, 1.0) for m in messages.values()])
        assert averaged is not None
        arrays = averaged

    assert {array.numpy().dtype for array in arrays.values()} == {np.dtype(np.float32)}


# Sites that are not asked for accuracies.


@pytest.mark.parametrize(("fraction", "asked"), [(0.0, 0), (0.4, 1), (0.7, 2), (1.0, 3)])
def test_every_site_takes_over_the_weights_whether_it_is_asked_for_accuracies_or_not(
    federate: Federate, fraction: float, asked: int
) -> None:
    federation = federate(fraction_evaluate=fraction)
    federation.ask(1)

    questions = federation.evaluate(1)

    assert sorted(questions) == sorted(NODES.values())
    for message in questions.values():
        assert message.metadata.message_type == MessageType.EVALUATE
        assert value_of(message.content.array_records[ARRAYS]) == 0
        assert message.content.config_records[CONFIG][ROUND] == 1
    others = [name for name, message in questions.items() if TAKE_OVER in message.content.config_records[CONFIG]]
    assert len(others) == 3 - asked
    replies = [
        reply(message, RecordDict({METRICS: MetricRecord()})) if name in others else evaluated(message, 0.5)
        for name, message in questions.items()
    ]
    federation.strategy.aggregate_evaluate(1, replies)
    (event,) = [event for event in federation.events() if "evaluation" in event]
    assert sorted(event["evaluation"]) == sorted(set(questions) - set(others))


def test_until_the_last_round_only_those_that_evaluate_have_the_weights_and_nobody_answers_from_them(
    federate: Federate,
) -> None:
    federation = federate(rounds=2, fraction_evaluate=0.4)
    ends = {}
    for number in (1, 2):
        messages = federation.ask(number)
        federation.strategy.aggregate_train(number, [trained(message, 1.0) for message in messages.values()])
        questions = federation.evaluate(number)
        ends[number] = [ENDS_RUN in message.content.config_records[CONFIG] for message in questions.values()]
        federation.strategy.aggregate_evaluate(number, [])

    assert ends == {1: [False], 2: [True, True, True]}
    assert [event["sites"] for event in federation.events()] == [sorted(NODES.values())] * 2


def test_run_that_goes_on_counts_its_rounds_from_those_before(tmp_path: Path) -> None:
    opened: list[int] = []
    federation = Federation(tmp_path / "run", opened.append, StrategyName.FEDAVG, rounds=5, before=3)
    for server_round in (1, 2):
        messages = federation.ask(server_round)
        federation.strategy.aggregate_train(server_round, [trained(m, 1.0) for m in messages.values()])
        questions = federation.evaluate(server_round)
        federation.strategy.aggregate_evaluate(server_round, [])

    assert opened == [4, 5]
    assert {message.content.config_records[CONFIG][ROUND] for message in messages.values()} == {5}
    assert all(ENDS_RUN in message.content.config_records[CONFIG] for message in questions.values())
    assert [event["number"] for event in federation.events()] == [4, 5]


@pytest.mark.parametrize("some", [True, False])
def test_weights_of_an_earlier_run_go_to_every_site_and_nobody_trains(federate: Federate, some: bool) -> None:
    federation = federate()
    sent: list[Message] = []

    def answer(messages: list[Message], **_: object) -> list[Message]:
        sent.extend(messages)
        kept = reply(messages[0], RecordDict({METRICS: MetricRecord()}))
        return [kept, failed(messages[1], "erased since")] if some else [failed(messages[1], "erased since")]

    federation.grid.send_and_receive.side_effect = answer
    if some:
        federation.strategy.give_again(federation.grid, weights(4))
        (event,) = federation.events()
        assert (event["sites"], event["failures"]) == (["hospital-1"], {"node 12": "erased since"})
    else:
        with pytest.raises(FederationStopped, match="no site takes these weights over: erased since"):
            federation.strategy.give_again(federation.grid, weights(4))

    told = [message.content.config_records[CONFIG] for message in sent]
    assert len(told) == len(NODES)
    assert all(each[AGAIN] and each[ENDS_RUN] and each[TAKE_OVER] for each in told)
    assert {value_of(message.content.array_records[ARRAYS]) for message in sent} == {4}
    assert not (federation.folder / LAST).exists()


def test_sites_that_tell_nothing_or_other_things_take_part(federate: Federate) -> None:
    federation = federate()
    messages = federation.ask(1)
    federation.strategy.aggregate_train(1, [trained(message, 2.0) for message in messages.values()])
    questions = federation.evaluate(1)
    told: dict[str, dict[str, float]] = {
        "hospital-1": {},
        "hospital-2": {"test-accuracy": 0.5},
        "hospital-3": {"test-accuracy": 1.0, "epsilon": 2.0},
    }

    federation.strategy.aggregate_evaluate(
        1, [reply(questions[site], RecordDict({METRICS: MetricRecord(dict(said))})) for site, said in told.items()]
    )

    (event,) = federation.events()
    assert event["sites"] == sorted(told)
    assert sorted(event["evaluation"]) == ["hospital-2", "hospital-3"]
    assert event["mean"] == {"epsilon": 2.0, "test-accuracy": 0.75}


# Sites that do not answer as they should.


def without(record: Any, name: str) -> Any:
    del record[name]
    return record


def with_weight(change: Callable[[NDArray[np.float32]], NDArray[Any]]) -> Callable[[RecordDict], object]:
    def spoil(content: RecordDict) -> None:
        arrays = content.array_records[ARRAYS]
        name = next(iter(arrays))
        arrays[name] = Array(change(arrays[name].numpy().copy()))

    return spoil


def with_bytes(content: RecordDict) -> None:
    arrays = content.array_records[ARRAYS]
    name = next(iter(arrays))
    arrays[name] = Array(arrays[name].dtype, arrays[name].shape, arrays[name].stype, b"no array")


BAD_TRAINING: dict[str, Callable[[RecordDict], object]] = {
    **{
        f"num-examples = {value}": lambda content, value=value: content.metric_records[METRICS].update(  # type: ignore[misc]
            {"num-examples": value}
        )
        for value in (-99, 10**12, 2.5, math.nan, [1, 2])
    },
    "no num-examples": lambda content: without(content.metric_records[METRICS], "num-examples"),
    "no metrics": lambda content: without(content, METRICS),
    "empty metrics": lambda content: content.metric_records[METRICS].clear(),
    "another metric": lambda content: content.metric_records[METRICS].update({"more": 1.0}),
    "one metric less": lambda content: without(content.metric_records[METRICS], "train-loss"),
    "an infinite loss": lambda content: content.metric_records[METRICS].update({"train-loss": math.inf}),
    "no weights": lambda content: without(content, ARRAYS),
    "one weight less": lambda content: without(
        content.array_records[ARRAYS], next(iter(content.array_records[ARRAYS]))
    ),
    "NaN": with_weight(lambda array: array * np.float32("nan")),
    "infinity": with_weight(lambda array: array + np.float32("inf")),
    "a shape that broadcasts": with_weight(lambda array: array[None]),
    "another kind": with_weight(lambda array: array.astype(np.float64)),
    "no array": with_bytes,
    "no name": lambda content: without(content, SITE),
    "a number for a name": lambda content: content.config_records[SITE].update({SITE: 3}),
    "a name of two lines": lambda content: content.config_records[SITE].update({SITE: "a\nb"}),
    "the name of another": lambda content: content.config_records[SITE].update({SITE: "hospital-1"}),
    "a name that nobody has": lambda content: content.config_records[SITE].update({SITE: "hospital-9"}),
}


@pytest.mark.parametrize("fault", BAD_TRAINING)
def test_reply_that_is_not_as_it_should_be_is_left_out_and_its_site_is_named(federate: Federate, fault: str) -> None:
    federation = federate()
    federation.grid.get_nodes.return_value = [NodeInfo(node_id=node, name=name) for node, name in NODES.items()]
    messages = federation.ask(1)
    good = [trained(messages[site], 3.0) for site in ("hospital-1", "hospital-3")]
    bad = trained(messages["hospital-2"], 99.0)
    BAD_TRAINING[fault](bad.content)

    arrays, metrics = federation.strategy.aggregate_train(1, [bad, *good])
    federation.strategy.aggregate_evaluate(1, [])

    assert value_of(arrays) == 3.0
    assert metrics is not None
    assert metrics["train-loss"] == 3.0
    (event,) = federation.events()
    assert list(event["failures"]) == ["hospital-2"]
    assert sorted(event["training"]) == ["hospital-1", "hospital-3"]


@pytest.mark.parametrize("accuracy", [1e9, -0.5, math.inf])
def test_accuracy_that_cannot_be_chooses_no_round(federate: Federate, accuracy: float) -> None:
    federation = federate()
    messages = federation.ask(1)
    federation.strategy.aggregate_train(1, [trained(message, 1.0) for message in messages.values()])
    questions = federation.evaluate(1)
    found = {"hospital-1": 0.5, "hospital-2": accuracy, "hospital-3": math.nan}

    metrics = federation.strategy.aggregate_evaluate(1, [evaluated(questions[name], found[name]) for name in found])

    assert metrics is not None
    assert metrics["test-accuracy"] == 0.5
    (event,) = federation.events()
    assert event["failures"] == {"hospital-2": f"test-accuracy = {accuracy} cannot be"}


def test_two_nodes_that_say_that_they_are_one_site_count_once(federate: Federate) -> None:
    federation = federate()
    messages = federation.ask(1)
    replies = {site: trained(messages[site], 3.0) for site in messages}
    replies["hospital-2"].content.config_records[SITE][SITE] = "hospital-1"

    federation.strategy.aggregate_train(1, replies.values())
    federation.strategy.aggregate_evaluate(1, [])

    (event,) = federation.events()
    assert event["failures"] == {"node 12": "it answers as hospital-1, and another node does"}
    assert sorted(event["training"]) == ["hospital-1", "hospital-3"]
