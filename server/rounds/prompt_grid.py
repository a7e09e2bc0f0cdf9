"""A grid that looks for replies soon: Flower's own, over HTTP, looks every three seconds.

A round under `exact` exchanges messages four times, so half of its time would be spent on waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from flwr.app import Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run

_FIRST_SECONDS = 0.1
_LONGEST_SECONDS = 2.0
_GROWTH = 1.3


class PromptGrid(Grid):
    """Flower's grid, asked for replies at growing intervals: 0.1 s at first, 2 s at most."""

    def __init__(
        self,
        grid: Grid,
        *,
        wait: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._grid, self._wait, self._clock = grid, wait, clock

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Return a message of the run."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes that are connected."""
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Return what is known of them."""
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages; return their ids."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have come to some messages, by the messages' ids."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and return the replies, when all have come or after so many seconds, in the order of coming."""
        waiting = set(self._grid.push_messages(messages))
        end = None if timeout is None else self._clock() + timeout
        found: list[Message] = []
        pause = _FIRST_SECONDS
        while waiting and (end is None or self._clock() < end):
            replies = list(self._grid.pull_messages(waiting))
            found += replies
            waiting -= {reply.metadata.reply_to_message_id for reply in replies}
            if waiting:
                self._wait(pause if end is None else max(0.0, min(pause, end - self._clock())))
                pause = min(pause * _GROWTH, _LONGEST_SECONDS)
        return found
