"""What people and programs are told of deletions: which request came, is late, was refused or ended, and alarms.

A notice holds a request's id and state, and of a site its name: no reference, no reason and no patient's id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, func, select

from fedmunkey.common.deletions.states import RequestState
from fedmunkey.common.errors import count_of
from fedmunkey.common.proofs.signing.statements import write_time
from fedmunkey.server.database.tables import EventRow, RequestRow
from fedmunkey.server.ledger.view import Summary

KINDS: Mapping[str, str] = {
    RequestState.DISPATCHED: "new",
    RequestState.OVERDUE: "late",
    RequestState.REFUSED: "refused",
    RequestState.PARTIAL: "partial",
    RequestState.ERASED: "erased",
    RequestState.COMPLETED: "completed",
}
"""What a request's new state is called in a notice."""

ALARM = "alarm"


@dataclass(frozen=True)
class Notice:
    """Something to be told; whoever hears `key` twice has heard the same twice."""

    key: str
    kind: str
    at: datetime
    text: str
    request: str = ""
    event: int = 0
    """The event's number in the ledger; 0 for an alarm."""

    def document(self) -> dict[str, str]:
        """Return what is sent."""
        request = {"request": self.request} if self.request else {}
        return {"key": self.key, "kind": self.kind, "at": write_time(self.at.replace(microsecond=0)), **request} | {
            "text": self.text
        }


def last_event(engine: Engine) -> int:
    """Return the number of the last event in a ledger; 0 if there is none."""
    with engine.connect() as connection:
        return connection.scalar(select(func.max(EventRow.event))) or 0


def read_notices(engine: Engine, after: int, most: int = 100) -> list[Notice]:
    """Return what is to be told of the events after one, oldest first; at most so many."""
    told = (
        select(EventRow.event, EventRow.at, EventRow.after, RequestRow.request_id)
        .join(RequestRow, RequestRow.number == EventRow.request)
        .where(EventRow.event > after, EventRow.site == "", EventRow.after.in_(KINDS))
        .order_by(EventRow.event)
        .limit(most)
    )
    with engine.connect() as connection:
        rows = connection.execute(told).all()
    return [
        Notice(
            # The number alone is given anew where a ledger was put back from a copy.
            f"{row.event}-{row.at:%Y%m%dT%H%M%S%f}",
            KINDS[row.after],
            row.at,
            f"request {row.request_id} is {row.after}",
            row.request_id,
            row.event,
        )
        for row in rows
    ]


def alarms(summary: Summary, now: datetime) -> list[Notice]:
    """Return the alarms that a ledger gives reason for; each has the same key as long as its reason is the same."""
    found = []
    if summary.renewal_late_seconds and summary.renew_by is not None:
        since = write_time(summary.renew_by.replace(microsecond=0))
        text = f"the shared weights should have been renewed by {since}; see munkey-server status"
        found.append(Notice(f"renewal-{since}", ALARM, now, text))
    found += [
        Notice(f"restored-{number}", ALARM, now, "the log was restored from a copy; see munkey-server status")
        for number, _ in enumerate(summary.restored, 1)
    ]
    if summary.lost:
        lost = count_of(len(summary.lost), "request")
        text = f"the ledger has lost {lost} that sites have answered; see munkey-server status"
        found.append(Notice(f"lost-{len(summary.lost)}", ALARM, now, text))
    return found
