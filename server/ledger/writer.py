"""The one thread of a process that writes to the ledger: what waits is written together and reaches the disk at once.

Waiting for the disk is what a small write costs. A hundred that wait for it together wait no longer than one (group
commit), and nobody is answered before the transaction that holds his write is on disk.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, bindparam, insert, update
from sqlalchemy.exc import DBAPIError

from fedmunkey.common.deletions.states import RequestState, SiteState, check_move
from fedmunkey.common.errors import FedmunkeyError, ServiceUnavailable
from fedmunkey.server.database.connection import announce, have_to_itself
from fedmunkey.server.database.tables import EventRow, OrderRow, RequestRow

MOST_TOGETHER = 256
"""Writes in one transaction, so that the first of them does not wait for long."""

HEARD_BY_SITES = (RequestState.DISPATCHED, SiteState.LEFT, "registered")
"""What is written where other processes have a site's stream to wake."""

_SET_REQUEST = (
    update(RequestRow).where(RequestRow.number == bindparam("of_request")).values(state=bindparam("to_state"))
)
_SET_ORDER = (
    update(OrderRow)
    .where(OrderRow.site == bindparam("of_site"), OrderRow.number == bindparam("of_number"))
    .values(state=bindparam("to_state"), reason=bindparam("with_reason"))
)

_INSERT_EVENT = insert(EventRow)


@dataclass(frozen=True)
class Event:
    """A row of the event table: a `common.deletions.words.Move` of a request by its number in the ledger, or of a site.

    Only those who listen while it is written are told the seconds from submission, where a request has come to an end.
    """

    at: datetime
    request: int | None
    site: str
    before: str
    after: str
    reason: str = ""
    seconds: float | None = None


class Transaction:
    """Collects changes of state and writes them together; here every one is checked against the legal moves.

    The connection is in a transaction that has the database to itself, everything in it happens at the time `at`, and
    `events` holds all that it records, in order.
    """

    def __init__(self, connection: Connection, at: datetime) -> None:
        self.connection = connection
        self.at = at
        self.events: list[Event] = []
        self._recorded = 0
        self._requests: dict[int, RequestState] = {}
        self._orders: dict[tuple[str, int], tuple[SiteState, str]] = {}

    def record(self, event: Event) -> None:
        """Have an event written that changes no state of a row that is there already."""
        self.events.append(event)

    def move_request(
        self, number: int, before: RequestState, after: RequestState, reason: str = "", seconds: float | None = None
    ) -> None:
        """Move a request; raises `IllegalMove` if it may not go there."""
        check_move(before, after)
        self._requests[number] = after
        self.record(Event(self.at, number, "", before.value, after.value, reason, seconds))

    def move_order(
        self, request: int, site: str, number: int, before: SiteState, after: SiteState, reason: str = ""
    ) -> None:
        """Move one site's part in a request; raises `IllegalMove` if it may not go there."""
        check_move(before, after)
        self._orders[site, number] = (after, reason if after is SiteState.LEFT else "")
        self.record(Event(self.at, request, site, before.value, after.value, reason))

    def flush(self) -> None:
        """Write what was collected, so that what is read next shows it."""
        if self._requests:
            values = [{"of_request": number, "to_state": state.value} for number, state in self._requests.items()]
            self.connection.execute(_SET_REQUEST, values)
            self._requests.clear()
        if self._orders:
            moved: list[dict[str, Any]] = [
                {"of_site": site, "of_number": number, "to_state": state.value, "with_reason": reason}
                for (site, number), (state, reason) in self._orders.items()
            ]
            self.connection.execute(_SET_ORDER, moved)
            self._orders.clear()
        if rows := self.events[self._recorded :]:
            self._recorded = len(self.events)
            self.connection.execute(
                _INSERT_EVENT,
                [
                    {
                        "at": event.at,
                        "request": event.request,
                        "site": event.site,
                        "before": event.before,
                        "after": event.after,
                        "reason": event.reason,
                    }
                    for event in rows
                ],
            )


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

Kind = Callable[[Transaction, Sequence[_Item]], Sequence[_Result | FedmunkeyError]]
"""Writes items of one kind; gives for each its result, or the error with which it was refused without a trace."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Write:
    kind: Kind[Any, Any]
    item: Any
    future: Future[Any]


class GroupWriter:
    """Takes writes from any thread; safe for threads.

    The ledger is `name` in messages, `clock` is asked once for each transaction, and `on_commit` is called in the
    writer's thread with a transaction's events once they are on disk, before anyone is answered.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        *,
        clock: Callable[[], datetime],
        on_commit: Callable[[Sequence[Event]], None],
    ) -> None:
        self._engine = engine.execution_options(write=True)
        self._name = name
        self._clock = clock
        self._on_commit = on_commit
        self._waiting: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, kind: Kind[_Item, _Result], item: _Item) -> Future[_Result]:
        """Have an item written; the future is done once it is on disk, or fails with why it is not.

        Callbacks of the future run in the writer's thread: they must be quick and must not wait for another write.
        """
        future: Future[_Result] = Future()
        # Nobody can take back what may be on its way to the disk.
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._closed:
                raise ServiceUnavailable(f"the ledger {self._name} is closed; open it again")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
                self._thread.start()
            self._waiting.put(_Write(kind, item, future))
        return future

    def close(self) -> None:
        """Write what waits, then take no more."""
        with self._lock:
            self._closed = True
            self._waiting.put(None)
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            together = [first]
            ended = False
            while len(together) < MOST_TOGETHER and not ended:
                try:
                    write = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if write is None:
                    ended = True
                else:
                    together.append(write)
            self._write(together)
            if ended:
                return

    def _write(self, writes: list[_Write]) -> None:
        try:
            results, events = self._commit(writes)
        except Exception as error:
            if len(writes) > 1:
                # One of them is at fault; the others must not suffer for it.
                for write in writes:
                    self._write([write])
            else:
                writes[0].future.set_exception(self._explain(error))
            return
        try:
            self._on_commit(events)
        except Exception:
            _log.exception("what was written could not be reported")
        for write, result in zip(writes, results, strict=True):
            if isinstance(result, FedmunkeyError):
                write.future.set_exception(result)
            else:
                write.future.set_result(result)

    def _commit(self, writes: list[_Write]) -> tuple[list[Any], list[Event]]:
        """Write everything in one transaction; return what became of each, and the events."""
        # Nobody who waits was answered, so nobody can tell in which order kinds are written.
        kinds: dict[Kind[Any, Any], list[int]] = {}
        for place, write in enumerate(writes):
            kinds.setdefault(write.kind, []).append(place)
        results: list[Any] = [None] * len(writes)
        with self._engine.connect() as connection, connection.begin():
            have_to_itself(connection)
            transaction = Transaction(connection, self._clock())
            for kind, places in kinds.items():
                found = kind(transaction, [writes[place].item for place in places])
                transaction.flush()
                for place, result in zip(places, found, strict=True):
                    results[place] = result
            if any(event.after in HEARD_BY_SITES for event in transaction.events):
                announce(connection)
        return results, transaction.events

    def _explain(self, error: Exception) -> Exception:
        if isinstance(error, DBAPIError):
            return ServiceUnavailable(f"the ledger {self._name} cannot be used: {error.orig}; try again")
        return error
