"""The ledger: what was asked for, which orders went out, what the sites answered, and when each of it happened.

Everything that is written goes through one thread (`server.ledger_writer`) and is on disk before the method returns, or
before its future is done. States move as `common.deletion_states` allows. Records and subjects appear as references
only. The tables are in `server.ledger_tables`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, Engine, insert, select
from sqlalchemy.exc import ArgumentError, DBAPIError

from common.deletion import (
    Acknowledgement,
    DeletionOrder,
    DeletionRequest,
    Move,
    Records,
    RequestStatus,
    utc_now,
)
from common.deletion_service import StatusPage
from common.deletion_states import OPEN_REQUESTS
from common.errors import InvalidDeletion, InvalidSetting, ServiceUnavailable
from common.failpoints import Failpoint, hit
from common.wire import MAXIMUM_REFERENCES, check_page_size
from server import ledger_answers, ledger_bulk, ledger_due, ledger_requests, ledger_sites
from server.ledger_bulk import BLOCKS_IN_A_WRITE, BULK, Blocks
from server.ledger_database import SQLITE, Announcements, ledger_url, open_engine
from server.ledger_due import DUE_DAYS, Extension
from server.ledger_errors import DeletionConflict, DeletionExists, UnknownDeletion
from server.ledger_reading import (
    LargeOrder,
    blocks_of,
    read_history,
    read_orders,
    read_references,
    read_signature,
    read_statuses,
)
from server.ledger_requests import Entry
from server.ledger_schema import SCHEMA_REVISION, bring_up_to_date
from server.ledger_sites import Contact, Departure, RegisteredSite
from server.ledger_summary import Summary, read_summary
from server.ledger_tables import NAME_CHARACTERS, REQUEST_ID_CHARACTERS, RequestRow, RoundRow
from server.ledger_transaction import Event, Transaction
from server.ledger_writer import GroupWriter

__all__ = [
    "NAME_CHARACTERS",
    "REQUEST_ID_CHARACTERS",
    "SCHEMA_REVISION",
    "DeletionConflict",
    "DeletionExists",
    "Ledger",
    "RegisteredSite",
    "UnknownDeletion",
]


class Ledger:
    """The coordinator's record of deletions, in an SQL database; safe for threads and for several processes.

    Parameters
    ----------
    database : str or Path
        A file for SQLite, made (readable by its owner only) if there is none, or a URL such as
        `postgresql://user@host/database`. Tables of an older version are brought up to date.
    clock : callable
        Returns the time, with a zone.
    due : timedelta
        From a request's submission to the day on which it is late.

    Raises
    ------
    InvalidSetting
        If the database cannot be opened, is no ledger, or has the schema of a later version.
    """

    def __init__(
        self,
        database: str | Path,
        *,
        clock: Callable[[], datetime] = utc_now,
        due: timedelta = timedelta(days=DUE_DAYS),
    ) -> None:
        self._clock = clock
        self._due = due
        self._listeners: list[Callable[[Sequence[Event]], None]] = []
        url = ledger_url(database)
        self.name = url.database if url.get_backend_name() == SQLITE else url.render_as_string(hide_password=True)
        try:
            self._engine = open_engine(url)
            with self._engine.execution_options(write=True).connect() as connection:
                bring_up_to_date(connection, self.name)
        except (ArgumentError, ImportError, OSError, DBAPIError) as error:
            # The driver's own words: SQLAlchemy would add the statement and a link.
            fault = error.orig if isinstance(error, DBAPIError) else error
            raise InvalidSetting(
                f"the ledger {self.name} cannot be opened ({fault}); name another with --database"
            ) from None
        self._writer = GroupWriter(self._engine, str(self.name), clock=clock, on_commit=self._tell)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exception: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def engine(self) -> Engine:
        """The ledger's database, where the transparency log has its tables as well."""
        return self._engine

    def close(self) -> None:
        """Write what waits to be written, and close every connection to the database."""
        self._writer.close()
        self._engine.dispose()

    def listen(self, listener: Callable[[Sequence[Event]], None]) -> None:
        """Have a function called with the events of each transaction of this process, in the writer's thread."""
        self._listeners.append(listener)

    def register(self, site: str) -> None:
        """Add a site to the federation, or bring one back that had left; one that is in it stays as it is.

        A site receives orders for requests that are entered afterwards, never for older ones: it holds what it held
        when it joined, and whoever wants that forgotten asks again. One that comes back also receives orders for what
        every site was asked for while it was away.

        Raises
        ------
        InvalidDeletion
            If the name is empty, too long, not printable, begins or ends with a space, or is that of the
            data-protection officer.
        """
        self._writer.submit(ledger_sites.register, site).result()

    def remove(self, site: str, reason: str = "") -> int:
        """Let a site leave the federation; its open requests can no longer be completed.

        Returns
        -------
        int
            How many orders it leaves unanswered.

        Raises
        ------
        InvalidDeletion
            If the site is not in the federation.
        """
        return self._writer.submit(ledger_sites.remove, Departure(site, reason)).result()

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

    def note_contact(self, sites: Collection[str], *, lasts: timedelta | None) -> Future[None]:
        """Write that sites are connected, for at least so long, or with None that they are no more."""
        until = None if lasts is None else self._clock() + lasts
        return self._writer.submit(ledger_sites.note_contact, Contact(tuple(sites), until))

    def enter(
        self, request: DeletionRequest, sites: Collection[str] | None = None, *, logged: bool = False
    ) -> RequestStatus:
        """Write a request and one order for each of the sites, by default those that the policy names.

        If the request is in the ledger already, nothing is written, whatever the sites. A request that names many
        records is written in several transactions, and has no order before all of it is there. With `logged`, its
        signature was checked, and goes into the transparency log in the transaction that writes its orders.

        Raises
        ------
        DeletionExists
            If the request id stands for another request.
        UnknownDeletion
            If a site is not registered.
        InvalidDeletion
            If the policy refuses the request.
        """
        if not is_bulk(request):
            return self.enter_soon(request, sites, logged=logged).result()
        entry = Entry(request, self._due, sites, logged)
        begun = self._writer.submit(ledger_bulk.begin, entry).result()
        if begun.missing and isinstance(request.target, Records):
            blocks = blocks_of(sorted(request.target.references))
            for first in range(0, len(blocks), BLOCKS_IN_A_WRITE):
                part = Blocks(begun.number, blocks[first : first + BLOCKS_IN_A_WRITE])
                self._writer.submit(ledger_bulk.write_blocks, part).result()
        return self._writer.submit(ledger_bulk.dispatch, entry).result()

    def enter_soon(
        self, request: DeletionRequest, sites: Collection[str] | None = None, *, logged: bool = False
    ) -> Future[RequestStatus]:
        """Enter a request that is no bulk without waiting until it is on disk; the future is `enter`'s outcome."""
        return self._writer.submit(ledger_requests.enter, Entry(request, self._due, sites, logged))

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

    def signature(self, site: str, number: int) -> bytes | None:
        """Return the requester's signature of a site's order, empty if there is none; None if there is no order."""
        with self._reading() as connection:
            return read_signature(connection, site, number)

    def note_delivered(self, site: str, numbers: Collection[int]) -> Future[None]:
        """Write that orders were sent to a site, without waiting until that is on disk."""
        return self._writer.submit(ledger_answers.note_delivered, ledger_answers.Delivered(site, tuple(numbers)))

    def acknowledge(self, answer: Acknowledgement, *, logged: bool = False) -> None:
        """Write a site's answer to an order; the same answer again changes nothing.

        Two answers are the same if they differ in nothing but `seconds` and the receipt: a site that never heard that
        its answer had arrived may have measured again. The first measurement is kept. With `logged`, its receipt was
        checked, and goes into the transparency log in the same transaction.

        Raises
        ------
        UnknownDeletion
            If the site has no order with that number and request id.
        DeletionConflict
            If the order was answered differently before, or the site has left the federation.
        """
        self.acknowledge_soon(answer, logged=logged).result()

    def acknowledge_soon(self, answer: Acknowledgement, *, logged: bool = False) -> Future[None]:
        """Acknowledge without waiting until the answer is on disk; the future is `acknowledge`'s outcome."""
        return self._writer.submit(ledger_answers.acknowledge, ledger_answers.Answer(answer, logged))

    def mark_overdue(self) -> int:
        """Move requests whose time has run out to `overdue`; return how many."""
        moved = 0
        while now := self._writer.submit(ledger_due.mark_overdue, None).result():
            moved += now
        return moved

    def extend(self, request_id: str, days: int, reason: str) -> RequestStatus:
        """Give a request more time, once, and return its status.

        Raises
        ------
        InvalidDeletion
            If there is no such request, it has come to an end, it was extended before, there is no reason, or the days
            are not from 1 to `LONGEST_EXTENSION_DAYS`.
        """
        return self._writer.submit(ledger_due.extend, Extension(request_id, days, reason)).result()

    def open_round(self, number: int) -> None:
        """Write down that a round of training begins."""
        self._writer.submit(_write_rounds, number).result()

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

    def announcements(self, stop: threading.Event) -> Announcements:
        """Return what waits until another process may have written orders, or until `stop` is set."""
        try:
            return Announcements(self._engine, stop)
        except DBAPIError as error:
            raise ServiceUnavailable(f"the ledger {self.name} cannot be used: {error.orig}; try again") from None

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise ServiceUnavailable(f"the ledger {self.name} cannot be used: {error.orig}; try again") from None

    def _tell(self, events: Sequence[Event]) -> None:
        for listener in self._listeners:
            listener(events)


def is_bulk(request: DeletionRequest) -> bool:
    """Return whether a request names so many records that it is written in several transactions."""
    return isinstance(request.target, Records) and len(request.target.references) > BULK


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


def _write_rounds(transaction: Transaction, numbers: Sequence[int]) -> list[None]:
    rows = [{"number": number, "opened_at": transaction.at} for number in numbers]
    transaction.connection.execute(insert(RoundRow), rows)
    hit(Failpoint.ROUND_BEFORE_COMMIT)
    return [None] * len(numbers)
