"""Writing what the sites answer, and what follows for their requests."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CursorResult, Row, insert, select, tuple_

from common.deletion import Acknowledgement
from common.deletion_states import RequestState, SiteState
from common.errors import FedmunkeyError
from common.failpoints import Failpoint, hit
from server.ledger_errors import DeletionConflict, UnknownDeletion
from server.ledger_reading import claims
from server.ledger_tables import AcknowledgementRow, OrderRow, RequestRow
from server.ledger_transaction import Transaction
from server.log_leaves import Leaf, append_leaves, leaf_of_receipt

_MOST_AT_ONCE = 1000


@dataclass(frozen=True)
class Delivered:
    """Orders of a site that were sent to it."""

    site: str
    numbers: Collection[int]


@dataclass(frozen=True)
class Answer:
    """What a site answers; with `logged`, it bears a receipt that was checked and goes into the transparency log."""

    acknowledgement: Acknowledgement
    logged: bool = False


def acknowledge(transaction: Transaction, answers: Sequence[Answer]) -> list[FedmunkeyError | None]:
    """Write answers; the same answer again changes nothing, another one to the same order is refused.

    Two answers are the same if they differ in nothing but `seconds` and the receipt; the first receipt is kept.
    """
    orders = _find_orders(transaction, [item.acknowledgement for item in answers])
    given = _find_answers(transaction, [key for key, row in orders.items() if SiteState(row.state).answered])
    results: list[FedmunkeyError | None] = []
    rows: list[dict[str, Any]] = []
    leaves: list[Leaf] = []
    for item in answers:
        answer = item.acknowledgement
        order = orders.get((answer.site, answer.number))
        fault = _fault(answer, order, given.get((answer.site, answer.number)))
        results.append(fault)
        if fault is None and order is not None and (answer.site, answer.number) not in given:
            row = {"site": answer.site, "number": answer.number, **claims(answer)}
            given[answer.site, answer.number] = row
            times = {"seconds": answer.seconds, "acknowledged_at": transaction.at}
            rows.append({**row, **times, "receipt": answer.receipt or None})
            if item.logged:
                leaves.append(leaf_of_receipt(answer.site, answer.number, answer.receipt))
            transaction.move_order(order.request, answer.site, answer.number, SiteState(order.state), answer.state)
    if rows:
        transaction.connection.execute(insert(AcknowledgementRow), rows)
        append_leaves(transaction.connection, leaves)
        settle(transaction, {orders[row["site"], row["number"]].request for row in rows})
        hit(Failpoint.ACKNOWLEDGE_BEFORE_COMMIT)
    return results


def note_delivered(transaction: Transaction, notes: Sequence[Delivered]) -> list[None]:
    """Write that orders were sent; those that have been answered meanwhile stay as they are."""
    sent = [(note.site, number) for note in notes for number in note.numbers]
    for first in range(0, len(sent), _MOST_AT_ONCE):
        pending = transaction.connection.execute(
            select(OrderRow.site, OrderRow.number, OrderRow.request).where(
                tuple_(OrderRow.site, OrderRow.number).in_(set(sent[first : first + _MOST_AT_ONCE])),
                OrderRow.state == SiteState.PENDING.value,
            )
        )
        for row in pending.all():
            transaction.move_order(row.request, row.site, row.number, SiteState.PENDING, SiteState.DELIVERED)
    return [None] * len(notes)


def settle(transaction: Transaction, requests: Collection[int], reason: str = "") -> None:
    """Move requests to where their sites have brought them, after changes that may still have to be written."""
    transaction.flush()
    counted = transaction.connection.execute(
        select(OrderRow.request, OrderRow.state)
        .where(OrderRow.request.in_(requests))
        .group_by(OrderRow.request, OrderRow.state)
    )
    states: dict[int, set[SiteState]] = {}
    for found in counted:
        states.setdefault(found.request, set()).add(SiteState(found.state))
    rows = transaction.connection.execute(
        select(RequestRow.number, RequestRow.state, RequestRow.submitted_at, RequestRow.due_at).where(
            RequestRow.number.in_(requests)
        )
    )
    for row in rows.all():
        before, after = RequestState(row.state), RequestState.of(states[row.number])
        # What is late stays late until it ends.
        if before is after or (before is RequestState.OVERDUE and not after.final):
            continue
        seconds = (transaction.at - row.submitted_at).total_seconds() if after.final else None
        transaction.move_request(row.number, before, after, reason, seconds)


def _find_orders(transaction: Transaction, answers: Sequence[Acknowledgement]) -> dict[tuple[str, int], Row[Any]]:
    found: CursorResult[Any] = transaction.connection.execute(
        select(OrderRow.site, OrderRow.number, OrderRow.state, OrderRow.request, RequestRow.request_id)
        .join(RequestRow, OrderRow.request == RequestRow.number)
        .where(tuple_(OrderRow.site, OrderRow.number).in_({(answer.site, answer.number) for answer in answers}))
    )
    return {(row.site, row.number): row for row in found}


def _find_answers(transaction: Transaction, keys: Collection[tuple[str, int]]) -> dict[tuple[str, int], dict[str, Any]]:
    if not keys:
        return {}
    found = transaction.connection.execute(
        select(*AcknowledgementRow.__table__.columns).where(
            tuple_(AcknowledgementRow.site, AcknowledgementRow.number).in_(keys)
        )
    )
    return {(row["site"], row["number"]): dict(row) for row in found.mappings()}


def _fault(answer: Acknowledgement, order: Row[Any] | None, known: dict[str, Any] | None) -> FedmunkeyError | None:
    if order is None or order.request_id != answer.request_id:
        return UnknownDeletion(f"site {answer.site!r} has no order {answer.number} for request {answer.request_id!r}")
    if order.state == SiteState.LEFT:
        return DeletionConflict(
            f"site {answer.site!r} has left the federation; munkey-server sites --add {answer.site} brings it back"
        )
    if known is not None and any(known[name] != claim for name, claim in claims(answer).items()):
        return DeletionConflict(
            f"site {answer.site!r} answered order {answer.number} with {known['state']!r} "
            f"({known['records']} records) before; an answer cannot be changed"
        )
    return None
