"""What becomes of replies that are not what Flower takes them for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import create_autospec

import httpx
import pytest
from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from fedmunkey.common.programs.round_messages import CHANGED, FAILED
from fedmunkey.server.rounds.careful_grid import LOST, CarefulGrid

pytestmark = pytest.mark.usefixtures("within_a_run")

Answer = Callable[[Message], list[Message]]


def ask(*answers: Answer, polls: int = 0, timeout: float | None = 60.0) -> list[Message]:
    """Ask as many nodes as there are answers, numbered from 1; return the replies, which come after so many looks."""
    grid: Any = create_autospec(Grid, instance=True)
    sent: dict[str, Message] = {}
    looks: dict[str, int] = {}

    def push(messages: list[Message]) -> list[str]:
        for message in messages:
            name = message.metadata.__dict__["_message_id"] = f"message-{message.metadata.dst_node_id}"
            sent[name] = message
        return list(sent)

    def pull(names: list[str]) -> list[Message]:
        (name,) = names
        looks[name] = looks.get(name, 0) + 1
        node = sent[name].metadata.dst_node_id
        return answers[node - 1](sent[name]) if looks[name] > polls else []

    grid.push_messages.side_effect = push
    grid.pull_messages.side_effect = pull
    messages = [Message(RecordDict(), node, "query.x") for node in range(1, len(answers) + 1)]
    return list(CarefulGrid(grid, wait=lambda _: None).send_and_receive(messages, timeout=timeout))


def good(message: Message) -> list[Message]:
    return [Message(RecordDict(), reply_to=message)]


def unreadable(message: Message) -> list[Message]:
    raise ValueError(f"unexpected bytes in the reply to {message.metadata.message_id}")


def of_node(node: int, reply_to: str = "") -> Answer:
    def answer(message: Message) -> list[Message]:
        (reply,) = good(message)
        reply.metadata.__dict__["_src_node_id"] = node
        if reply_to:
            reply.metadata.__dict__["_reply_to_message_id"] = reply_to
        return [reply]

    return answer


def said_by_flower(message: Message) -> list[Message]:
    reply = Message(Error(code=CHANGED, reason="one\nline"), reply_to=message)
    reply.metadata.__dict__["_src_node_id"] = 1
    return [reply]


@pytest.mark.parametrize("bad", [unreadable, of_node(1), of_node(2, "message-1"), lambda message: good(message) * 2])
def test_reply_that_is_not_one_of_its_own_is_an_error_of_its_node_and_the_others_count(bad: Answer) -> None:
    replies = ask(good, bad, good, polls=2)

    assert [(reply.metadata.src_node_id, reply.has_error()) for reply in replies] == [(1, False), (2, True), (3, False)]
    assert replies[1].error.code == FAILED


def test_error_is_of_the_node_that_was_asked_and_one_line() -> None:
    (_, reply) = ask(good, said_by_flower)

    assert reply.metadata.src_node_id == 2
    assert (reply.error.code, reply.error.reason) == (CHANGED, "one\\nline")


def test_who_does_not_answer_in_time_is_not_waited_for() -> None:
    assert ask(good, lambda _: [], timeout=0.0) != []
    assert len(ask(good, lambda _: [], timeout=0.0)) == 1


def test_superlink_that_does_not_answer_is_no_fault_of_a_site() -> None:
    def gone(_message: Message) -> list[Message]:
        raise httpx.ConnectError("gone")

    with pytest.raises(httpx.ConnectError):
        ask(gone)


@pytest.mark.parametrize(("count", "longest"), [(1, 0.12), (10, 0.3), (200, 2.0)])
def test_it_looks_again_soon_at_first_and_then_the_less_often_the_more_it_asks_for(count: int, longest: float) -> None:
    waits: list[float] = []
    grid: Any = create_autospec(Grid, instance=True)
    messages = [Message(RecordDict(), node, "query.x") for node in range(1, count + 1)]
    named = {f"message-{message.metadata.dst_node_id}": message for message in messages}
    for name, message in named.items():
        message.metadata.__dict__["_message_id"] = name
    grid.push_messages.return_value = list(named)
    grid.pull_messages.side_effect = lambda names: good(named[names[0]]) if sum(waits) > 300 else []

    replies = list(CarefulGrid(grid, wait=waits.append).send_and_receive(messages))

    assert [reply.has_error() for reply in replies] == [False] * count
    assert sum(waits[:4]) < 1
    assert max(waits) == waits[-1] == pytest.approx(longest)


@pytest.mark.parametrize(("reply_at", "given_up_at"), [(1.0, 31.0), (20.0, 220.0)])
def test_answer_that_is_lost_in_a_simulation_is_an_error_after_a_silence(reply_at: float, given_up_at: float) -> None:
    """It is the longer, the longer the others took."""
    now = [0.0]
    grid: Any = create_autospec(Grid, instance=True)
    messages = [Message(RecordDict(), node, "query.x") for node in (1, 2)]
    for message in messages:
        message.metadata.__dict__["_message_id"] = f"message-{message.metadata.dst_node_id}"
    grid.push_messages.return_value = ["message-1", "message-2"]
    grid.pull_messages.side_effect = lambda names: (
        good(messages[0]) if names == ["message-1"] and now[0] >= reply_at else []
    )

    def wait(seconds: float) -> None:
        now[0] += seconds

    careful = CarefulGrid(grid, longest=0.1, silence=30.0, wait=wait, clock=lambda: now[0])
    replies = list(careful.send_and_receive(messages, timeout=900.0))

    assert [(reply.metadata.src_node_id, reply.has_error()) for reply in replies] == [(1, False), (2, True)]
    assert replies[1].error.code == LOST
    assert now[0] == pytest.approx(given_up_at, abs=2.0)


def test_simulation_in_which_nobody_has_answered_yet_is_waited_for() -> None:
    now = [0.0]
    grid: Any = create_autospec(Grid, instance=True)
    message = Message(RecordDict(), 1, "query.x")
    message.metadata.__dict__["_message_id"] = "message-1"
    grid.push_messages.return_value = ["message-1"]
    grid.pull_messages.side_effect = lambda _: good(message) if now[0] >= 600 else []

    def wait(seconds: float) -> None:
        now[0] += seconds

    (reply,) = CarefulGrid(grid, silence=30.0, wait=wait, clock=lambda: now[0]).send_and_receive([message])

    assert not reply.has_error()
