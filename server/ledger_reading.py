"""Reading the ledger's rows back into the words of a deletion."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from fedmunkey.common.deletion import (
    Acknowledgement,
    DeletionOrder,
    DeletionRequest,
    Move,
    Records,
    RequestState,
    RequestStatus,
    SiteProgress,
    SiteState,
    Subject,
    Target,
    WholeSite,
)
from fedmunkey.common.guarantees import Guarantee, PrivacyLoss
from fedmunkey.common.references import REFERENCE_BYTES
from fedmunkey.server.ledger_pairs import among
from fedmunkey.server.ledger_tables import (
    ANSWERS_ORDER,
    BLOCK,
    AcknowledgementRow,
    EventRow,
    OrderRow,
    ReferencesRow,
    RequestRow,
)

RECORDS, SUBJECT, SITE = "records", "subject", "site"
"""Kinds of targets, as the table names them."""

BLOCKS_AT_ONCE = 10
"""Rows of references that are held at a time while an order is sent in parts."""

_PROGRESS = select(
    OrderRow.request,
    OrderRow.site,
    OrderRow.number,
    OrderRow.state.label("order_state"),
    OrderRow.reason.label("order_reason"),
    *(column for column in AcknowledgementRow.__table__.columns if column.name not in ("site", "number")),
).outerjoin(AcknowledgementRow, ANSWERS_ORDER)


@dataclass(frozen=True)
class LargeOrder:
    """An order with more references than fit into one part; they are read block by block.

    Attributes
    ----------
    number, site
        As in a `DeletionOrder`.
    request_id, requester, records_site
        The request without its references.
    request : int
        The request's number in the ledger.
    references : int
        How many it names.
    signature : bytes
        As in a `DeletionRequest`.
    """

    number: int
    site: str
    request_id: str
    requester: str
    records_site: str
    request: int
    references: int
    signature: bytes


def read_statuses(connection: Connection, rows: Sequence[Row[Any]], now: datetime) -> list[RequestStatus]:
    """Return the statuses of rows of `requests`, in their order.

    A request whose time has run out is `overdue` from that moment, even if nobody has moved it there yet.
    """
    ids = {row.number: row.request_id for row in rows}
    progress: dict[int, list[SiteProgress]] = {number: [] for number in ids}
    for found in connection.execute(_PROGRESS.where(OrderRow.request.in_(ids))):
        progress[found.request].append(_progress(found, ids[found.request]))
    return [
        RequestStatus(
            request,
            row.submitted_at,
            # The database's own order of names depends on its locale.
            tuple(sorted(progress[row.number], key=lambda part: part.site)),
            _state(row, now),
            row.due_at,
            row.extension,
        )
        for row, request in zip(rows, read_requests(connection, rows), strict=True)
    ]


def read_requests(connection: Connection, rows: Sequence[Row[Any]]) -> list[DeletionRequest]:
    """Return the requests of rows of `requests`, in their order, with all their references."""
    references: dict[int, list[bytes]] = {row.number: [] for row in rows if row.target_kind == RECORDS}
    if references:
        blocks = select(ReferencesRow.request, ReferencesRow.block).where(ReferencesRow.request.in_(references))
        for found in connection.execute(blocks):
            references[found.request] += split(found.block)
    return [
        DeletionRequest(row.request_id, row.requester, _target(row, references), row.signature or b"") for row in rows
    ]


def read_orders(
    connection: Connection, site: str, after: int, *, most: int, most_references: int
) -> list[DeletionOrder | LargeOrder]:
    """Return a site's next orders, few enough to be held: at most `most`, with at most `most_references` in all.

    An order with more than `most_references` is returned without them, as a `LargeOrder`.
    """
    rows = connection.execute(
        select(OrderRow.number.label("order_number"), *RequestRow.__table__.columns)
        .join(RequestRow, OrderRow.request == RequestRow.number)
        .where(OrderRow.site == site, OrderRow.number > after)
        .order_by(OrderRow.number)
        .limit(most)
    )
    taken = _within(rows.all(), most_references)
    small = [row for row in taken if row.reference_count <= most_references]
    requests = dict(zip([row.number for row in small], read_requests(connection, small), strict=True))
    return [
        DeletionOrder(row.order_number, site, requests[row.number])
        if row.number in requests
        else LargeOrder(
            row.order_number,
            site,
            row.request_id,
            row.requester,
            row.target_site,
            row.number,
            row.reference_count,
            row.signature or b"",
        )
        for row in taken
    ]


def read_references(connection: Connection, request: int, after: int) -> list[bytes]:
    """Return up to `BLOCKS_AT_ONCE` blocks of a request's references from place `after` on, in ascending order."""
    blocks = connection.scalars(
        select(ReferencesRow.block)
        .where(ReferencesRow.request == request, ReferencesRow.first >= after)
        .order_by(ReferencesRow.first)
        .limit(BLOCKS_AT_ONCE)
    )
    return [reference for block in blocks for reference in split(block)]


def read_signatures(connection: Connection, orders: Collection[tuple[str, int]]) -> dict[tuple[str, int], bytes]:
    """Return the requesters' signatures of orders, by site and number, empty where there is none."""
    columns = (OrderRow.site, OrderRow.number, RequestRow.signature)
    chosen, values = among(connection, OrderRow.site, OrderRow.number, orders)
    rows = connection.execute(
        select(*columns).join(OrderRow, OrderRow.request == RequestRow.number).where(chosen), values
    )
    return {(row.site, row.number): row.signature or b"" for row in rows.all()}


def read_history(connection: Connection, request: int) -> list[Move]:
    """Return what happened to a request, oldest first."""
    rows = connection.execute(
        select(EventRow.at, EventRow.site, EventRow.before, EventRow.after, EventRow.reason)
        .where(EventRow.request == request)
        .order_by(EventRow.event)
    )
    return [Move(*row) for row in rows]


def split(block: bytes) -> list[bytes]:
    """Return the references of a block."""
    return [block[first : first + REFERENCE_BYTES] for first in range(0, len(block), REFERENCE_BYTES)]


def blocks_of(references: Sequence[bytes]) -> list[tuple[int, bytes]]:
    """Return sorted references as the table holds them: the place of each block's first one, and the block."""
    return [(first, b"".join(references[first : first + BLOCK])) for first in range(0, len(references), BLOCK)]


def claims(answer: Acknowledgement) -> dict[str, str | float | None]:
    """Return what an answer says about the deletion, as the table's columns hold it."""
    record, subject = answer.record_loss, answer.subject_loss
    return {
        "state": answer.state.value,
        "records": answer.records,
        "entries": answer.entries,
        "guarantee": answer.guarantee.value,
        "reason": answer.reason,
        "record_epsilon": record.epsilon if record else None,
        "record_delta": record.delta if record else None,
        "subject_epsilon": subject.epsilon if subject else None,
        "subject_delta": subject.delta if subject else None,
        "subject_records": subject.records if subject else None,
    }


def _within(rows: Sequence[Row[Any]], most_references: int) -> Sequence[Row[Any]]:
    """Return as many rows from the first as name few enough references; one that names more holds none of them."""
    held = 0
    for place, row in enumerate(rows):
        held += row.reference_count if row.reference_count <= most_references else 0
        if held > most_references:
            return rows[:place]
    return rows


def _target(row: Row[Any], references: dict[int, list[bytes]]) -> Target:
    if row.target_kind == RECORDS:
        return Records(frozenset(references[row.number]), row.target_site)
    if row.target_kind == SUBJECT:
        return Subject(row.subject_reference or b"")
    return WholeSite(row.target_site)


def _state(row: Row[Any], now: datetime) -> RequestState:
    state = RequestState(row.state)
    return RequestState.OVERDUE if not state.final and row.due_at is not None and row.due_at < now else state


def _progress(row: Row[Any], request_id: str) -> SiteProgress:
    state = SiteState(row.order_state)
    if not state.answered:
        return SiteProgress(row.site, row.number, state, reason=row.order_reason)
    acknowledgement = Acknowledgement(
        number=row.number,
        site=row.site,
        request_id=request_id,
        state=state,
        records=row.records,
        entries=row.entries,
        guarantee=Guarantee(row.guarantee),
        seconds=row.seconds,
        reason=row.reason,
        record_loss=_loss(row.record_epsilon, row.record_delta, 1),
        subject_loss=_loss(row.subject_epsilon, row.subject_delta, row.subject_records),
        receipt=row.receipt or b"",
    )
    return SiteProgress(row.site, row.number, state, acknowledgement, row.acknowledged_at, row.reason)


def _loss(epsilon: float | None, delta: float | None, records: int | None) -> PrivacyLoss | None:
    return None if epsilon is None or delta is None or records is None else PrivacyLoss(epsilon, delta, records)
