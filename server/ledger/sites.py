"""Sites join the federation, leave it, and come back; what follows for their orders."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from fedmunkey.common.deletions.limits import LINE_CHARACTERS, is_line
from fedmunkey.common.deletions.words import OFFICER_NAMES, SiteState
from fedmunkey.common.errors import DeletionConflict, FedmunkeyError, InvalidDeletion, UnknownDeletion
from fedmunkey.server.database.tables import NAME_CHARACTERS, ORDER_IS_OPEN, OrderRow, RequestRow, SiteRow
from fedmunkey.server.ledger.answers import settle
from fedmunkey.server.ledger.requests import number_orders
from fedmunkey.server.ledger.writer import Event, Transaction

REGISTERED = "registered"
LEFT = SiteState.LEFT.value


@dataclass(frozen=True)
class Departure:
    """A site that leaves, and why."""

    site: str
    reason: str = ""


@dataclass(frozen=True)
class Contact:
    """Sites that were connected just now; `until` says for how long they are taken to be, None that they are gone."""

    sites: Collection[str]
    until: datetime | None


def register(transaction: Transaction, names: Sequence[str]) -> list[FedmunkeyError | None]:
    """Add sites to the federation, or bring those back that had left; one that is in it stays as it is."""
    results: list[FedmunkeyError | None] = []
    for name in names:
        row = _find(transaction.connection, name)
        fault = _name_fault(name)
        results.append(fault)
        if fault is not None:
            continue
        if row is None:
            transaction.connection.execute(insert(SiteRow).values(name=name, registered_at=transaction.at))
            transaction.record(Event(transaction.at, None, name, "", REGISTERED))
        elif row.left_at is not None:
            _bring_back(transaction, row)
    return results


def remove(transaction: Transaction, departures: Sequence[Departure]) -> list[int | FedmunkeyError]:
    """Let sites leave; what they had not answered is `left`, and so the requests cannot be completed.

    Returns how many orders each site leaves behind.
    """
    results: list[int | FedmunkeyError] = []
    for departure in departures:
        row = _find(transaction.connection, departure.site)
        if row is None:
            results.append(UnknownDeletion(f"site {departure.site!r} is not registered; nothing was removed"))
        elif row.left_at is not None:
            results.append(DeletionConflict(f"site {departure.site!r} has left the federation already"))
        elif not is_line(departure.reason):
            results.append(InvalidDeletion(f"a reason is one line of at most {LINE_CHARACTERS} characters"))
        else:
            results.append(_let_leave(transaction, row, departure.reason))
    return results


def note_contact(transaction: Transaction, contacts: Sequence[Contact]) -> list[None]:
    """Write which sites are connected."""
    for contact in contacts:
        transaction.connection.execute(
            update(SiteRow)
            .where(SiteRow.name.in_(contact.sites))
            .values(seen_at=transaction.at, connected_until=contact.until)
        )
    return [None] * len(contacts)


def _find(connection: Connection, name: str) -> Row[Any] | None:
    return connection.execute(select(*SiteRow.__table__.columns).where(SiteRow.name == name)).one_or_none()


def _name_fault(name: str) -> InvalidDeletion | None:
    if not name or len(name) > NAME_CHARACTERS or not name.isprintable() or name != name.strip():
        return InvalidDeletion(f"{name!r} cannot be a site's name: use 1 to {NAME_CHARACTERS} printable characters")
    if name in OFFICER_NAMES:
        return InvalidDeletion(f"{name!r} cannot be a site's name: its holder may ask for everything")
    return None


def _let_leave(transaction: Transaction, row: Row[Any], reason: str) -> int:
    orders = transaction.connection.execute(
        select(OrderRow.request, OrderRow.number, OrderRow.state).where(OrderRow.site == row.name, ORDER_IS_OPEN)
    ).all()
    why = f"{row.name} left the federation{f': {reason}' if reason else ''}"
    for order in orders:
        transaction.move_order(order.request, row.name, order.number, SiteState(order.state), SiteState.LEFT, why)
    transaction.record(Event(transaction.at, None, row.name, REGISTERED, LEFT, reason))
    settle(transaction, {order.request for order in orders}, why)
    last = transaction.connection.scalar(select(func.max(RequestRow.number)))
    transaction.connection.execute(
        update(SiteRow)
        .where(SiteRow.name == row.name)
        .values(left_at=transaction.at, left_after=last or 0, connected_until=None)
    )
    return len(orders)


def _bring_back(transaction: Transaction, row: Row[Any]) -> None:
    """Open the site's orders again, and give it orders for what every site was asked for while it was away.

    It comes with what it held when it left, and nothing that was deleted meanwhile may come back with it.
    """
    orders = transaction.connection.execute(
        select(OrderRow.request, OrderRow.number).where(
            OrderRow.site == row.name, OrderRow.state == SiteState.LEFT.value
        )
    ).all()
    why = f"{row.name} came back to the federation"
    for order in orders:
        transaction.move_order(order.request, row.name, order.number, SiteState.LEFT, SiteState.PENDING, why)
    missed = transaction.connection.scalars(
        select(RequestRow.number)
        .where(
            RequestRow.number > row.left_after,
            RequestRow.everyone,
            # A large request of an older version that broke off has no orders.
            RequestRow.number.in_(select(OrderRow.request)),
            RequestRow.number.not_in(select(OrderRow.request).where(OrderRow.site == row.name)),
        )
        .order_by(RequestRow.number)
    ).all()
    number_orders(transaction, [(number, (row.name,)) for number in missed], {row.name: row.last_number})
    transaction.record(Event(transaction.at, None, row.name, LEFT, REGISTERED))
    transaction.connection.execute(
        update(SiteRow).where(SiteRow.name == row.name).values(left_at=None, left_after=None)
    )
    settle(transaction, {*missed, *(order.request for order in orders)}, why)
