"""By when a request must have come to an end, what happens when it has not, and how it is given more time, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select, update

from fedmunkey.common.deletions.limits import LINE_CHARACTERS, is_line
from fedmunkey.common.deletions.states import OPEN_REQUESTS, RequestState
from fedmunkey.common.deletions.words import RequestStatus
from fedmunkey.common.errors import DeletionConflict, FedmunkeyError, InvalidDeletion
from fedmunkey.server.database.tables import ORDER_IS_OPEN, OrderRow, RequestRow
from fedmunkey.server.ledger.view import find_request, read_statuses
from fedmunkey.server.ledger.writer import Event, Transaction

DUE_DAYS = 30
"""Days from submission; the month of GDPR article 12(3), taken at its shortest but for February."""

LONGEST_EXTENSION_DAYS = 60
"""The two further months that GDPR article 12(3) allows where a request is complex."""

_MOST_AT_ONCE = 500


@dataclass(frozen=True)
class Extension:
    """More time for a request, and why."""

    request_id: str
    days: int
    reason: str


def mark_overdue(transaction: Transaction, sweeps: Sequence[None]) -> list[int]:
    """Move requests whose time has run out, some at a time; returns how many, for the first sweep of those together."""
    rows = transaction.connection.execute(
        select(RequestRow.number, RequestRow.state, RequestRow.due_at)
        .where(
            RequestRow.state.in_([state.value for state in OPEN_REQUESTS if state is not RequestState.OVERDUE]),
            RequestRow.due_at < transaction.at,
        )
        .limit(_MOST_AT_ONCE)
    ).all()
    for row in rows:
        reason = f"it was due on {row.due_at:%Y-%m-%d}"
        transaction.move_request(row.number, RequestState(row.state), RequestState.OVERDUE, reason)
    return [len(rows), *[0] * (len(sweeps) - 1)]


def extend(transaction: Transaction, extensions: Sequence[Extension]) -> list[RequestStatus | FedmunkeyError]:
    """Give requests more time; returns their statuses."""
    results: list[RequestStatus | FedmunkeyError] = []
    for extension in extensions:
        try:
            results.append(_extend(transaction, extension))
        except InvalidDeletion as error:
            results.append(error)
    return results


def _extend(transaction: Transaction, extension: Extension) -> RequestStatus:
    _check(extension)
    name = extension.request_id
    row = find_request(transaction.connection, name)
    state = RequestState(row.state)
    if state.final:
        raise DeletionConflict(f"request {name!r} is {state}; there is nothing to give it time for")
    orders = select(func.count()).select_from(OrderRow).where(OrderRow.request == row.number)
    waits = transaction.connection.scalar(orders.where(ORDER_IS_OPEN))
    if not transaction.connection.scalar(orders):
        raise DeletionConflict(f"request {name!r} did not arrive as a whole; submit it again with another id")
    if row.extension:
        raise DeletionConflict(
            f"request {name!r} was given more time already, until {row.due_at:%Y-%m-%d} ({row.extension}); "
            "it cannot be extended twice"
        )
    due = row.due_at + timedelta(days=extension.days)
    transaction.connection.execute(
        update(RequestRow).where(RequestRow.number == row.number).values(due_at=due, extension=extension.reason)
    )
    dates = (f"due {row.due_at:%Y-%m-%d}", f"due {due:%Y-%m-%d}")
    transaction.record(Event(transaction.at, row.number, "", *dates, extension.reason))
    if state is RequestState.OVERDUE and due >= transaction.at:
        after = RequestState.DISPATCHED if waits or row.renew_by is None else RequestState.ERASED
        transaction.move_request(row.number, state, after, "it was given more time")
    transaction.flush()
    changed = find_request(transaction.connection, name)
    return read_statuses(transaction.connection, [changed], transaction.at)[0]


def _check(extension: Extension) -> None:
    if not 1 <= extension.days <= LONGEST_EXTENSION_DAYS:
        raise InvalidDeletion(
            f"{extension.days} more days are not possible; extend by 1 to {LONGEST_EXTENSION_DAYS} days"
        )
    reason = extension.reason
    if not reason.strip() or not is_line(reason):
        raise InvalidDeletion(f"an extension needs a reason: one line of 1 to {LINE_CHARACTERS} characters")
