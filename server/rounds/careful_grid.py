"""Flower's grid, taking each reply by itself: one that cannot be read is an error of the site that sent it.

Flower reads all replies that are there in one go, and what a site has sent as the parts of one may be any bytes. One
that cannot be put together would end the run, and take the others' replies with it.

In a simulation a machine that is lost may take an answer with it that was made and not yet fetched. Ray then waits for
that answer for ever.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

import httpx
from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedmunkey.common.programs.round_messages import FAILED
from fedmunkey.common.service.foreign_text import printable

# Flower shows what the children of its own logger say.
logger = logging.getLogger(f"flwr.{__name__}")

_FIRST_SECONDS, _LONGEST_SECONDS = 0.1, 2.0
"""How long it waits before it looks for replies again: longer each time, as what takes long may take longer."""

_LONGEST_OF_ONE = 0.02
"""So much longer, at most, for each message: each look asks for every one."""

_GROWTH = 1.3

ENGINE_LOOK_SECONDS = 0.1
"""How often it looks for replies in the memory of a simulation."""

ENGINE_SILENCE_SECONDS = 30.0
"""How long in a simulation nobody may answer, once somebody has, before those that are left are taken for lost."""

_IN_PAUSES = 10

_QUIET_SECONDS = 1.0

LOST = ErrorCode.UNKNOWN
"""The code of an error that Flower's simulation engine reports of a worker that has died."""


class CarefulGrid(Grid):
    """Sends and receives as the grid that it is given, and turns replies that nobody can read into error replies.

    It looks for replies every `longest` seconds at least, and more often for few messages. Where `silence` is given, in
    seconds, those that have not come by then since the last that did are lost, with the error that Flower's engine
    gives for a worker that has died; it is more where there were long pauses before. Of a message that was not
    answered, as `has_reply` says by its id, the reply is looked for only after a second in which none has come.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        longest: float = _LONGEST_SECONDS,
        silence: float | None = None,
        has_reply: Callable[[str], bool] = lambda _: True,
        wait: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._grid = grid
        self._longest = longest
        self._silence = silence
        self._has_reply = has_reply
        self._wait = wait
        self._clock = clock

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
        last = self._clock()
        end = last + timeout if timeout is not None else None
        replies: list[Message] = []
        pause, longest_silence = _FIRST_SECONDS, 0.0
        while waiting:
            everywhere = self._clock() - last > _QUIET_SECONDS
            answered = [name for name in waiting if self._has_reply(name) or everywhere]
            looked = {name: self._pull(name, waiting[name]) for name in answered}
            pulled = {name: reply for name, reply in looked.items() if reply is not None}
            replies += pulled.values()
            waiting = {name: message for name, message in waiting.items() if name not in pulled}
            now = self._clock()
            silence = now - last
            if pulled:
                last, longest_silence = now, max(longest_silence, silence)
            elif replies and self._silence is not None and silence > max(self._silence, _IN_PAUSES * longest_silence):
                return [*replies, *(_failed(message, "its answer was lost", LOST) for message in waiting.values())]
            if not waiting or (end is not None and now >= end):
                break
            self._wait(pause)
            pause = min(pause * _GROWTH, self._longest, _FIRST_SECONDS + _LONGEST_OF_ONE * len(sent))
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
