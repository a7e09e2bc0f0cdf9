"""One transaction of a writer: here every state is changed, checked against the legal moves, and recorded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, insert, update

from fedmunkey.common.deletion_states import RequestState, SiteState, check_move
from fedmunkey.server.ledger_tables import EventRow, OrderRow, RequestRow

_SET_REQUEST = (
    update(RequestRow).where(RequestRow.number == bindparam("of_request")).values(state=bindparam("to_state"))
)
_SET_ORDER = (
    update(OrderRow)
    .where(OrderRow.site == bindparam("of_site"), OrderRow.number == bindparam("of_number"))
    .values(state=bindparam("to_state"), reason=bindparam("with_reason"))
)


@dataclass(frozen=True)
class Event:
    """A row of the event table, and what only those who listen while it is written are told.

    Attributes
    ----------
    at, request, site, before, after, reason
        As `common.deletion.Move`; `request` is the request's number in the ledger, None for a move of a site.
    seconds : float, optional
        From submission, where a request has come to an end.
    """

    at: datetime
    request: int | None
    site: str
    before: str
    after: str
    reason: str = ""
    seconds: float | None = None


class Transaction:
    """Collects changes of state and writes them together.

    Parameters
    ----------
    connection : Connection
        In a transaction that has the database to itself.
    at : datetime
        The time of everything that happens in it.

    Attributes
    ----------
    events : list of Event
        All of the transaction, in order.
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
                insert(EventRow),
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
