"""Flower's simulation engine, looking for messages only where there are some.

Every tenth of a second the engine looks for each node through all messages that are under way, and whoever asks for
replies looks for each of his messages: a thousand nodes take a thousand times as long at each of a thousand messages.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid


class EngineMail:
    """What is under way in the memory of a simulation; safe for threads.

    `state` is the memory: it is told of each message and reply by whoever brings it, and asked for a node's messages.
    """

    def __init__(self, state: Any) -> None:
        self._lock = threading.Lock()
        self._undelivered: Counter[int] = Counter()
        self._answered: set[str] = set()
        self._come = threading.Event()
        find, store, store_reply = state.get_message_ins, state.store_message_ins, state.store_message_res

        def look(node_id: int, *others: Any, **named: Any) -> list[Message]:
            """Return a node's messages, as the memory does; of a node to which nobody wrote, without looking."""
            if not self._undelivered[node_id]:
                return []
            found: list[Message] = find(node_id, *others, **named)
            with self._lock:
                self._undelivered[node_id] -= len(found)
            return found

        def send(message: Message) -> str | None:
            """Keep a message, and note whom it is for."""
            with self._lock:
                self._undelivered[message.metadata.dst_node_id] += 1
            stored: str | None = store(message)
            return stored

        def reply(message: Message) -> str | None:
            """Keep a reply, and wake whoever waits for some."""
            stored: str | None = store_reply(message)
            with self._lock:
                self._answered.add(message.metadata.reply_to_message_id)
            self._come.set()
            return stored

        state.get_message_ins, state.store_message_ins, state.store_message_res = look, send, reply

    @classmethod
    def of(cls, grid: Grid) -> EngineMail | None:
        """Return the mail of a grid in memory; None where its memory is of another form than Flower's today."""
        state = getattr(grid, "state", None)
        known = all(hasattr(state, name) for name in ("get_message_ins", "store_message_ins", "store_message_res"))
        return cls(state) if known else None

    def has_reply(self, message_id: str) -> bool:
        """Return whether a message was answered; it is said once."""
        with self._lock:
            if message_id not in self._answered:
                return False
            self._answered.discard(message_id)
            return True

    def wait(self, seconds: float) -> None:
        """Wait until a reply comes, so long at most."""
        self._come.wait(seconds)
        self._come.clear()
