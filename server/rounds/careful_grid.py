"""Flower's grid, taking each reply by itself: one that cannot be read is an error of the site that sent it.

Flower reads all replies that are there in one go, and what a site has sent as the parts of one may be any bytes. One
that cannot be put together would end the run, and take the others' replies with it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

import httpx
from flwr.app import Error, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedmunkey.common.programs.round_messages import FAILED
from fedmunkey.common.service.foreign_text import printable

# Flower shows what the children of its own logger say.
logger = logging.getLogger(f"flwr.{__name__}")

_FIRST_SECONDS, _LONGEST_SECONDS = 0.1, 2.0
"""How long it waits before it looks for replies again: longer each time, as what takes long may take longer."""

_GROWTH = 1.3


class CarefulGrid(Grid):
    """Sends and receives as the grid that it is given, and turns replies that nobody can read into error replies."""

    def __init__(self, grid: Grid, *, wait: Callable[[float], object] = time.sleep) -> None:
        self._grid = grid
        self._wait = wait

    def set_run(self, run: Run) -> None:
        """Say which run it is for."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run that it is for."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Return a message to a node."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes that are connected."""
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Return what is known of the nodes that are connected."""
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages; return their ids."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there; raises what Flower raises for one that cannot be read."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages, and return one reply to each that is answered in `timeout` seconds, or at all without one."""
        sent = list(messages)
        waiting = dict(zip(self._grid.push_messages(sent), sent, strict=False))
        end = time.monotonic() + timeout if timeout is not None else None
        replies: list[Message] = []
        pause = _FIRST_SECONDS
        while waiting:
            for name, message in list(waiting.items()):
                reply = self._pull(name, message)
                if reply is not None:
                    replies.append(reply)
                    del waiting[name]
            if not waiting or (end is not None and time.monotonic() >= end):
                break
            self._wait(pause)
            pause = min(pause * _GROWTH, _LONGEST_SECONDS)
        return replies

    def _pull(self, name: str, message: Message) -> Message | None:
        """Return the reply to a message, None if there is none yet."""
        try:
            found = list(self._grid.pull_messages([name]))
        except httpx.HTTPError:
            raise  # the SuperLink's fault, and no site's
        except Exception as error:  # what Flower makes of any bytes
            return _failed(message, f"its reply cannot be read ({type(error).__name__})")
        if not found:
            return None
        if len(found) > 1 or not isinstance(found[0], Message):
            return _failed(message, "its reply is not one reply")
        return _checked(found[0], name, message)


def _checked(reply: Message, name: str, message: Message) -> Message:
    """Return a reply, or an error where it is not what it is taken for.

    Flower keeps who has sent which reply, and then believes what stands in the reply itself.
    """
    if reply.has_error():
        # Flower itself says in such a one that somebody has gone, and from nobody in particular.
        return _failed(message, printable(str(reply.error.reason or "")), code=reply.error.code)
    if not isinstance(reply.content, RecordDict):
        return _failed(message, "its reply has no records")
    said, asked = reply.metadata, message.metadata
    if (said.src_node_id, said.reply_to_message_id) != (asked.dst_node_id, name):
        return _failed(message, "its reply says that it is another node's, or to something else")
    return reply


def _failed(message: Message, reason: str, code: int = FAILED) -> Message:
    return Message(Error(code=code, reason=reason), reply_to=message)
