"""Replies are looked for soon after they can have come, and not for longer than was asked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from unittest.mock import create_autospec

import pytest
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedmunkey.server.rounds.prompt_grid import PromptGrid

pytestmark = pytest.mark.usefixtures("within_a_run")


class Nodes:
    """Nodes that reply when it is time, by a clock that waiting moves on."""

    def __init__(self, *after: float) -> None:
        self.now = 0.0
        self.looked: list[float] = []
        self.asked = [
            Message(RecordDict(), dst_node_id=node, message_type="query") for node in range(1, len(after) + 1)
        ]
        for message in self.asked:
            message.metadata.__dict__["_message_id"] = f"message-{message.metadata.dst_node_id}"
        self._after = after
        self.flower: Any = create_autospec(Grid, instance=True)
        self.flower.push_messages.side_effect = lambda messages: [one.metadata.message_id for one in messages]
        self.flower.pull_messages.side_effect = self._replies
        self.grid = PromptGrid(self.flower, wait=self._wait, clock=lambda: self.now)

    def _replies(self, ids: Iterable[str]) -> list[Message]:
        self.looked.append(self.now)
        wanted = set(ids)
        return [
            Message(RecordDict(), reply_to=message)
            for message, after in zip(self.asked, self._after, strict=True)
            if after <= self.now and message.metadata.message_id in wanted
        ]

    def _wait(self, seconds: float) -> None:
        self.now += seconds

    def receive(self, timeout: float | None = None) -> list[int]:
        replies = self.grid.send_and_receive(self.asked, timeout=timeout)
        return [reply.metadata.src_node_id for reply in replies]


def test_replies_are_received_once_each_soon_after_they_came() -> None:
    nodes = Nodes(0.0, 0.35, 1.0)

    assert nodes.receive() == [1, 2, 3]
    assert nodes.now < 1.4


def test_long_work_is_asked_for_every_two_seconds() -> None:
    nodes = Nodes(300.0)

    assert nodes.receive() == [1]
    assert 300 <= nodes.now <= 302
    assert len(nodes.looked) < 170


def test_who_does_not_reply_in_time_is_not_waited_for() -> None:
    nodes = Nodes(0.5, 60.0)

    assert nodes.receive(timeout=10.0) == [1]
    assert nodes.now == pytest.approx(10.0)


def test_everything_else_is_flowers() -> None:
    nodes = Nodes()
    grid = nodes.grid

    assert grid.get_node_ids() is nodes.flower.get_node_ids.return_value
    assert grid.get_nodes() is nodes.flower.get_nodes.return_value
    assert grid.pull_messages([]) == []
    assert grid.push_messages([]) == []
    grid.create_message(RecordDict(), "query", 7, "group", 3.0)
    nodes.flower.create_message.assert_called_once_with(RecordDict(), "query", 7, "group", 3.0)
