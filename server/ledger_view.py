"""Reading the ledger: each method is one look at the database, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import DBAPIError

from fedmunkey.common.deletion import DeletionOrder, Move, RequestStatus
from fedmunkey.common.deletion_service import StatusPage
from fedmunkey.common.deletion_states import OPEN_REQUESTS
from fedmunkey.common.errors import InvalidDeletion, ServiceUnavailable
from fedmunkey.common.wire import MAXIMUM_REFERENCES, check_page_size
from fedmunkey.server import ledger_sites
from fedmunkey.server.ledger_errors import UnknownDeletion
from fedmunkey.server.ledger_reading import (
    LargeOrder,
    read_history,
    read_orders,
    read_references,
    read_signatures,
    read_statuses,
)
from fedmunkey.server.ledger_sites import RegisteredSite
from fedmunkey.server.ledger_summary import Summary, read_summary
from fedmunkey.server.ledger_tables import RequestRow, RoundRow


class LedgerView:
    """What can be asked of a ledger; safe for threads.

    Parameters
    ----------
    engine : Engine
        The database.
    name : str
        The ledger, for messages.
    clock : callable
        Returns the time, with a zone.
    """

    def __init__(self, engine: Engine, name: str, clock: Callable[[], datetime]) -> None:
        self.name = name
        self._engine = engine
        self._clock = clock

    @property
    def engine(self) -> Engine:
        """The ledger's database, where the transparency log has its tables as well."""
        return self._engine

    def sites(self) -> tuple[RegisteredSite, ...]:
        """Return the sites that are or were in the federation, in alphabetical order."""
        with self._reading() as connection:
            return tuple(ledger_sites.read_sites(connection, self._clock()))

    def site_names(self) -> tuple[str, ...]:
        """Return the names of the sites that are in the federation, in alphabetical order."""
        return tuple(sorted(name for name, last in self.positions().items() if last is not None))

    def positions(self) -> dict[str, int | None]:
        """Return the number of each site's last order; None for a site that has left."""
        with self._reading() as connection:
            return ledger_sites.read_positions(connection)

    def status(self, request_id: str) -> RequestStatus:
        """Return one request's status.

        Raises
        ------
        UnknownDeletion
            If there is no such request.
        """
        with self._reading() as connection:
            return read_statuses(connection, [_find(connection, request_id)], self._clock())[0]

    def history(self, request_id: str) -> tuple[Move, ...]:
        """Return what happened to a request, oldest first; raises `UnknownDeletion` if there is no such request."""
        with self._reading() as connection:
            return tuple(read_history(connection, _find(connection, request_id).number))

    def page(self, page: str = "", size: int = 100, *, late: bool = False) -> StatusPage:
        """Return up to `size` requests in the order of their submission, with `late` only those that are overdue.

        A page ends early before it names more than `MAXIMUM_REFERENCES` records, but has one request at least.

        Raises
        ------
        InvalidDeletion
            If `page` is not one that an earlier page named as the next, or the size is out of range.
        """
        check_page_size(size)
        if page and not (page.isdecimal() and page.isascii() and len(page) < 19):
            raise InvalidDeletion(f"{page!r} is not a page; begin with an empty one")
        now = self._clock()
        statement = select(*RequestRow.__table__.columns).where(RequestRow.number > int(page or 0))
        if late:
            statement = statement.where(
                RequestRow.state.in_([state.value for state in OPEN_REQUESTS]), RequestRow.due_at < now
            )
        with self._reading() as connection:
            rows = connection.execute(statement.order_by(RequestRow.number).limit(size + 1)).all()
            taken = _within_budget(rows[:size])
            next_page = str(taken[-1].number) if len(taken) < len(rows) else ""
            return StatusPage(tuple(read_statuses(connection, taken, now)), next_page)

    def last_number(self, site: str) -> int:
        """Return the number of a site's last order, 0 if it has none.

        Raises
        ------
        UnknownDeletion
            If the site was never registered.
        DeletionConflict
            If it has left the federation.
        """
        with self._reading() as connection:
            return ledger_sites.read_last_number(connection, site)

    def order(self, site: str, number: int) -> DeletionOrder | None:
        """Return one order of a site, however large, or None if there is none with that number."""
        found = self.orders(site, number - 1, most=1, most_references=MAXIMUM_REFERENCES)
        return found[0] if found and isinstance(found[0], DeletionOrder) and found[0].number == number else None

    def orders(
        self, site: str, after: int, *, most: int, most_references: int
    ) -> tuple[DeletionOrder | LargeOrder, ...]:
        """Return the orders that follow number `after` at a site: at most `most`, with at most so many references.

        An order that names more references by itself comes without them; `references` returns them bit by bit.
        """
        with self._reading() as connection:
            return tuple(read_orders(connection, site, after, most=most, most_references=most_references))

    def references(self, request: int, after: int) -> list[bytes]:
        """Return some references of a large order's request from place `after` on, none at its end."""
        with self._reading() as connection:
            return read_references(connection, request, after)

    def signatures(self, orders: Collection[tuple[str, int]]) -> dict[tuple[str, int], bytes]:
        """Return the requesters' signatures of orders by site and number, empty where there is none.

        Orders that are not in the ledger are left out.
        """
        with self._reading() as connection:
            return read_signatures(connection, orders)

    def rounds(self) -> tuple[tuple[int, datetime], ...]:
        """Return the rounds in the order of their opening: number and time."""
        with self._reading() as connection:
            rows = connection.execute(select(RoundRow.number, RoundRow.opened_at).order_by(RoundRow.opening))
            return tuple((number, opened_at) for number, opened_at in rows)

    def pending(self) -> int:
        """Return how many orders are still to be answered by sites that are in the federation."""
        return self.summary().pending_orders

    def summary(self) -> Summary:
        """Return the counts that tell whether deletions get through."""
        with self._reading() as connection:
            return read_summary(connection, self._clock())

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise ServiceUnavailable(f"the ledger {self.name} cannot be used: {error.orig}; try again") from None


def _find(connection: Connection, request_id: str) -> Any:
    row = connection.execute(
        select(*RequestRow.__table__.columns).where(RequestRow.request_id == request_id)
    ).one_or_none()
    if row is None:
        raise UnknownDeletion(f"there is no request {request_id!r}; munkey-server requests lists them")
    return row


def _within_budget(rows: Sequence[Any]) -> Sequence[Any]:
    references = 0
    for taken, row in enumerate(rows):
        references += row.reference_count
        if references > MAXIMUM_REFERENCES and taken:
            return rows[:taken]
    return rows
