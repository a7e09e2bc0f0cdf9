"""A simulation's engine is asked for messages only of nodes to which somebody wrote, and replies wake whoever waits."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from flwr.server.superlink.linkstate import InMemoryLinkState
from flwr.superlink.grid import InMemoryGrid

from fedmunkey.server.rounds.engine_mail import EngineMail

pytestmark = pytest.mark.usefixtures("within_a_run")


class Memory:
    """What the engine's memory does with messages, counting how often somebody looks."""

    def __init__(self) -> None:
        self.looks = 0
        self.waiting: list[Message] = []

    def get_message_ins(self, node_id: int, limit: int | None) -> list[Message]:
        self.looks += 1
        found = [message for message in self.waiting if message.metadata.dst_node_id == node_id][:limit]
        self.waiting = [message for message in self.waiting if message not in found]
        return found

    def store_message_ins(self, message: Message) -> str:
        self.waiting.append(message)
        return message.metadata.message_id

    def store_message_res(self, message: Message) -> str:
        return message.metadata.message_id


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def mail(memory: Memory) -> EngineMail:
    found = EngineMail.of(SimpleNamespace(state=memory))  # type: ignore[arg-type]
    assert found is not None
    return found


def to(node: int) -> Message:
    message = Message(RecordDict(), node, "query.x")
    message.metadata.__dict__["_message_id"] = f"message-{node}"
    return message


def test_the_memory_is_asked_only_for_nodes_that_have_messages(memory: Memory, mail: EngineMail) -> None:
    sent = [to(7), to(7), to(9)]
    for message in sent:
        memory.store_message_ins(message)

    sweeps = [[found for node in range(1000) for found in memory.get_message_ins(node, limit=1)] for _ in range(3)]

    assert sweeps == [[sent[0], sent[2]], [sent[1]], []]
    assert memory.looks == 3
    assert not mail.has_reply("message-7")


def test_a_reply_wakes_whoever_waits_and_is_told_once(memory: Memory, mail: EngineMail) -> None:
    message = to(7)
    memory.store_message_ins(message)
    reply = Message(RecordDict(), reply_to=message)
    woken: list[bool] = []

    def wait() -> None:
        mail.wait(30)
        woken.append(mail.has_reply("message-7"))

    waiting = threading.Thread(target=wait)
    waiting.start()
    memory.store_message_res(reply)
    waiting.join(30)

    assert woken == [True]
    assert not mail.has_reply("message-7")


def test_a_memory_of_another_form_is_left_alone() -> None:
    other: Any = SimpleNamespace(state=SimpleNamespace(get_message_ins=print))

    assert EngineMail.of(other) is None
    assert other.state.get_message_ins is print


def test_flowers_engine_has_the_memory_that_is_known() -> None:
    assert all(
        hasattr(InMemoryLinkState, name) for name in ("get_message_ins", "store_message_ins", "store_message_res")
    )
    assert "state" in InMemoryGrid.__init__.__code__.co_names
