"""Rows of the ledger as requests and what has become of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from fedmunkey.common.deletions.references import REFERENCE_BYTES
from fedmunkey.common.deletions.words import (
    Acknowledgement,
    DeletionRequest,
    Records,
    RequestState,
    RequestStatus,
    SiteProgress,
    SiteState,
    Subject,
    Target,
    WholeSite,
)
from fedmunkey.common.errors import UnknownDeletion
from fedmunkey.server.database.tables import (
    ANSWERS_ORDER,
    RECORDS,
    SUBJECT,
    AcknowledgementRow,
    OrderRow,
    ReferencesRow,
    RequestRow,
)

REQUESTS = select(*RequestRow.__table__.columns)
_PROGRESS = select(
    OrderRow.request,
    OrderRow.site,
    OrderRow.number,
    OrderRow.state,
    OrderRow.reason,
    AcknowledgementRow.document,
    AcknowledgementRow.receipt,
    AcknowledgementRow.acknowledged_at,
).outerjoin(AcknowledgementRow, ANSWERS_ORDER)


def find_request(connection: Connection, request_id: str) -> Row[Any]:
    """Return a request's row; raises `UnknownDeletion` if there is none."""
    row = connection.execute(REQUESTS.where(RequestRow.request_id == request_id)).one_or_none()
    if row is None:
        raise UnknownDeletion(f"there is no request {request_id!r}; munkey-server requests lists them")
    return row


def read_statuses(connection: Connection, rows: Sequence[Row[Any]], now: datetime) -> list[RequestStatus]:
    """Return the statuses of rows of `requests`, in their order.

    A request whose time has run out is `overdue` from that moment, even if nobody has moved it there yet.
    """
    progress: dict[int, list[SiteProgress]] = {row.number: [] for row in rows}
    for found in connection.execute(_PROGRESS.where(OrderRow.request.in_(progress))):
        progress[found.request].append(_progress(found))
    return [
        RequestStatus(
            request,
            row.submitted_at,
            tuple(sorted(progress[row.number], key=lambda part: part.site)),
            _state(row, now),
            row.due_at,
            row.extension,
            row.renew_by,
        )
        for row, request in zip(rows, read_requests(connection, rows), strict=True)
    ]


def read_requests(connection: Connection, rows: Sequence[Row[Any]]) -> list[DeletionRequest]:
    """Return the requests of rows of `requests`, in their order."""
    references: dict[int, list[bytes]] = {row.number: [] for row in rows if row.target_kind == RECORDS}
    if references:
        blocks = select(ReferencesRow.request, ReferencesRow.block).where(ReferencesRow.request.in_(references))
        for number, block in connection.execute(blocks):
            places = range(0, len(block), REFERENCE_BYTES)
            references[number] += [block[first : first + REFERENCE_BYTES] for first in places]
    return [
        DeletionRequest(row.request_id, row.requester, _target(row, references), row.signature or b"") for row in rows
    ]


def within(rows: Sequence[Row[Any]], most_references: int) -> Sequence[Row[Any]]:
    """Return as many rows from the first as name few enough references, at least one."""
    held = 0
    for place, row in enumerate(rows):
        held += row.reference_count
        if held > most_references and place:
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


def _progress(row: Any) -> SiteProgress:
    state = SiteState(row.state)
    if not state.answered:
        return SiteProgress(row.site, row.number, state, reason=row.reason)
    answer = answer_of(row)
    if answer is None:
        raise AssertionError("an order that was answered has an answer")
    return SiteProgress(row.site, row.number, state, answer, row.acknowledged_at, answer.reason)


def answer_of(row: Any) -> Acknowledgement | None:
    """Return a site's answer, by the document and receipt of a row; None where it has not answered."""
    return None if row.document is None else Acknowledgement.from_json(row.document, row.receipt or b"")
