"""The counts that tell whether deletions get through, for metrics and for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from fedmunkey.common.deletion_states import OPEN_REQUESTS, RequestState
from fedmunkey.server.ledger_tables import ORDER_IS_OPEN, OrderRow, RequestRow, SiteRow


@dataclass(frozen=True)
class Summary:
    """Where the ledger's requests stand.

    Attributes
    ----------
    requests : mapping
        How many are in each state; a request whose time has run out is `overdue`.
    pending_orders : int
        Orders still to be answered by sites that are in the federation.
    oldest_pending : datetime, optional
        When the oldest request with such an order was submitted; None if there is none.
    oldest_seconds : float
        Since then; 0 if there is none.
    connected_sites : int
        Sites that follow their orders at the moment, at any process of the service.
    sites : int
        Sites that are in the federation.
    """

    requests: Mapping[RequestState, int]
    pending_orders: int
    oldest_pending: datetime | None
    oldest_seconds: float
    connected_sites: int
    sites: int


def read_summary(connection: Connection, now: datetime) -> Summary:
    """Count."""
    requests = dict.fromkeys(RequestState, 0)
    for state, count in connection.execute(
        select(RequestRow.state, func.count(RequestRow.state)).group_by(RequestRow.state)
    ):
        requests[RequestState(state)] += count
    waiting = [state for state in OPEN_REQUESTS if state is not RequestState.OVERDUE]
    for state, count in connection.execute(
        select(RequestRow.state, func.count(RequestRow.state))
        .where(RequestRow.state.in_([state.value for state in waiting]), RequestRow.due_at < now)
        .group_by(RequestRow.state)
    ):
        requests[RequestState(state)] -= count
        requests[RequestState.OVERDUE] += count
    pending, oldest = connection.execute(
        select(func.count(OrderRow.request), func.min(OrderRow.request)).where(ORDER_IS_OPEN)
    ).one()
    since = connection.scalar(select(RequestRow.submitted_at).where(RequestRow.number == oldest))
    members = SiteRow.left_at.is_(None)
    connected = connection.scalar(select(func.count(SiteRow.name)).where(members, SiteRow.connected_until > now))
    return Summary(
        requests,
        pending,
        since,
        0.0 if since is None else max(0.0, (now - since).total_seconds()),
        connected or 0,
        connection.scalar(select(func.count(SiteRow.name)).where(members)) or 0,
    )
