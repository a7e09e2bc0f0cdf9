"""The ledger: what was asked for, which orders went out, what the sites answered, and when each of it happened.

Everything that is written goes through one thread (`server.ledger.writer`) and is on disk before the method returns, or
before its future is done. States move as `common.deletions.states` allows. Records and subjects appear as references
only. The tables are in `server.database.tables`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import insert
from sqlalchemy.exc import ArgumentError, DBAPIError

from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.renewals import ReleasedWeights
from fedmunkey.common.deletions.words import Acknowledgement, DeletionRequest, RequestStatus
from fedmunkey.common.errors import (
    DeletionConflict,
    DeletionExists,
    InvalidSetting,
    ServiceUnavailable,
    UnknownDeletion,
    count_of,
)
from fedmunkey.common.failpoints import Failpoint, hit
from fedmunkey.common.proofs.governance.instructions import Instruction
from fedmunkey.common.proofs.governance.standing import Standing
from fedmunkey.common.settings.settings import RENEW_DAYS
from fedmunkey.server.database.connection import Announcements, ledger_url, open_engine, shown
from fedmunkey.server.database.schema import SCHEMA_REVISION, bring_up_to_date
from fedmunkey.server.database.tables import NAME_CHARACTERS, REQUEST_ID_CHARACTERS, RoundRow
from fedmunkey.server.ledger import (
    answers as ledger_answers,
)
from fedmunkey.server.ledger import (
    due as ledger_due,
)
from fedmunkey.server.ledger import (
    requests as ledger_requests,
)
from fedmunkey.server.ledger import (
    sites as ledger_sites,
)
from fedmunkey.server.ledger.due import DUE_DAYS, Extension
from fedmunkey.server.ledger.instruction_journal import InstructionJournal
from fedmunkey.server.ledger.instructions import Given, StandingReader, read_after
from fedmunkey.server.ledger.lineage import LedgerLineage
from fedmunkey.server.ledger.lost import LedgerMark
from fedmunkey.server.ledger.requests import Entry
from fedmunkey.server.ledger.sites import Contact, Departure
from fedmunkey.server.ledger.view import RegisteredSite
from fedmunkey.server.ledger.writer import Event, GroupWriter, Transaction

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


_log = logging.getLogger(__name__)


class Ledger(LedgerLineage):
    """The coordinator's record of deletions, in an SQL database; safe for threads and for several processes.

    The database is a file for SQLite, made (readable by its owner only) if there is none, or a URL such as
    `postgresql://user@host/database`; tables of an older version are brought up to date. A request is late from `due`
    after its submission, and weights are renewed within `renew` after a deletion. `instructions` is the file that keeps
    holds and opt-outs when the database goes back to a copy. Raises `InvalidSetting` if the
    database cannot be opened, is no ledger, or has a later version's schema.
    """

    def __init__(
        self,
        database: str | Path,
        *,
        clock: Callable[[], datetime] = utc_now,
        due: timedelta = timedelta(days=DUE_DAYS),
        renew: timedelta = timedelta(days=RENEW_DAYS),
        instructions: Path | None = None,
    ) -> None:
        self._due = due
        self._listeners: list[Callable[[Sequence[Event]], None]] = []
        url = ledger_url(database)
        name = shown(url)
        try:
            engine = open_engine(url)
            try:
                with engine.execution_options(write=True).connect() as connection:
                    bring_up_to_date(connection, name)
            except BaseException:
                engine.dispose()
                raise
        except (ArgumentError, ImportError, OSError, DBAPIError) as error:
            # The driver's own words: SQLAlchemy would add the statement and a link.
            fault = error.orig if isinstance(error, DBAPIError) else error
            raise InvalidSetting(
                f"the ledger {name} cannot be opened ({fault}); name another with --database"
            ) from None
        super().__init__(engine, name, clock, renew)
        self._standing = StandingReader(None if instructions is None else InstructionJournal(instructions))
        try:
            self.recover_instructions()
        except BaseException:
            engine.dispose()
            raise
        self._writer = GroupWriter(engine, name, clock=clock, on_commit=self._tell)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exception: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

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

        Raises `InvalidDeletion` if the name is empty, too long, not printable, begins or ends with a space, or is that
        of the data-protection officer.
        """
        self._writer.submit(ledger_sites.register, site).result()

    def remove(self, site: str, reason: str = "") -> int:
        """Let a site leave the federation; its open requests can no longer be completed.

        Returns how many orders it leaves unanswered; raises `InvalidDeletion` if the site is not in the federation.
        """
        return self._writer.submit(ledger_sites.remove, Departure(site, reason)).result()

    def note_contact(self, sites: Collection[str], *, lasts: timedelta | None) -> Future[None]:
        """Write that sites are connected, for at least so long, or with None that they are no more."""
        until = None if lasts is None else self._clock() + lasts
        return self._writer.submit(ledger_sites.note_contact, Contact(tuple(sites), until))

    def enter(
        self, request: DeletionRequest, sites: Collection[str] | None = None, *, logged: bool = False
    ) -> RequestStatus:
        """Write a request and one order for each of the sites, by default those that the policy names.

        If the request is in the ledger already, nothing is written, whatever the sites. With `logged`, its signature
        was checked, and goes into the transparency log in the same transaction.

        Raises `DeletionExists` if the request id stands for another request, `UnknownDeletion` if a site is not
        registered, `InvalidDeletion` if the policy refuses the request.
        """
        return self.enter_soon(request, sites, logged=logged).result()

    def enter_soon(
        self, request: DeletionRequest, sites: Collection[str] | None = None, *, logged: bool = False
    ) -> Future[RequestStatus]:
        """Enter a request without waiting until it is on disk; the future is `enter`'s outcome."""
        return self._writer.submit(ledger_requests.enter, Entry(request, self._due, sites, logged, self._standing))

    def instruct(self, instruction: Instruction, check: Callable[[Instruction, Standing], object]) -> Standing:
        """Enter an instruction, and return those that stand from then on; one that is known changes nothing.

        `check` raises `InvalidProof` if it may not be added to those that stand. Raises `NotAllowed` then, and
        `DeletionExists` if the instruction's id stands for another.
        """
        return self._writer.submit(self._standing.enter, Given(instruction, check)).result()

    def standing(self) -> Standing:
        """Return the instructions that stand."""
        with self._reading() as connection:
            return self._standing.read(connection)

    def instructions(self, after: int, digest: bytes) -> list[tuple[int, bytes]]:
        """Return instructions behind a number, as `server.ledger.instructions.read_after`."""
        with self._reading() as connection:
            return read_after(connection, after, digest)

    def recover_instructions(self) -> int:
        """Bring back the instructions that the journal has and the ledger has lost; return how many these are."""
        try:
            lost = self._standing.recover(self._engine)
        except DBAPIError as error:
            raise ServiceUnavailable(f"the ledger {self.name} cannot be used: {error.orig}; try again") from None
        if lost:
            _log.warning("the ledger had lost %s, which its journal has", count_of(lost, "instruction"))
        return lost

    def note_delivered(self, orders: Collection[tuple[str, int]]) -> Future[None]:
        """Write that orders, each by site and number, were sent, without waiting until that is on disk."""
        return self._writer.submit(ledger_answers.note_delivered, ledger_answers.Delivered(tuple(orders)))

    def acknowledge(self, answer: Acknowledgement, *, logged: bool = False) -> None:
        """Write a site's answer to an order; the same answer again changes nothing.

        Two answers are the same if they differ in nothing but `seconds` and the receipt: a site that never heard that
        its answer had arrived may have measured again. The first measurement is kept. With `logged`, its receipt was
        checked, and goes into the transparency log in the same transaction.

        Raises `UnknownDeletion` if the site has no order with that number and request id, `DeletionConflict` if the
        order was answered differently before, or the site has left the federation.
        """
        self.acknowledge_soon(answer, logged=logged).result()

    def acknowledge_soon(self, answer: Acknowledgement, *, logged: bool = False) -> Future[None]:
        """Acknowledge without waiting until the answer is on disk; the future is `acknowledge`'s outcome."""
        return self._writer.submit(ledger_answers.acknowledge, ledger_answers.Answer(answer, logged, self._renew))

    def note_release(self, released: ReleasedWeights) -> None:
        """Write down that weights were solved for, with the leaf of the log that says so, before any site has them.

        Raises `InvalidDeletion` if a site says that it contributed after more orders than it was given.
        """
        self._writer.submit(ledger_answers.note_releases, released).result()

    def note_given_out(self, digest: str, sites: Collection[str]) -> tuple[str, ...]:
        """Note which sites have taken released weights over; return those that contributed to them and lack them.

        Where none lacks them, requests that waited for weights without what they erased are completed. Raises
        `InvalidDeletion` if there is no such release.
        """
        return self._writer.submit(ledger_answers.note_given_out, ledger_answers.GivenOut(digest, sites)).result()

    def release_again(self, digest: str) -> None:
        """Write down that released weights, by their digest, are given to the sites again, before any site has them.

        Raises `InvalidDeletion` if there is no such release, or records that it was solved with were deleted since; the
        message names the requests.
        """
        self._writer.submit(ledger_answers.release_again, digest).result()

    def mark_overdue(self) -> int:
        """Move requests whose time has run out to `overdue`; return how many."""
        moved = 0
        while now := self._writer.submit(ledger_due.mark_overdue, None).result():
            moved += now
        return moved

    def extend(self, request_id: str, days: int, reason: str) -> RequestStatus:
        """Give a request more time, once, and return its status.

        Raises `InvalidDeletion` if there is no such request, it has come to an end, it was extended before, there is no
        reason, or the days are not from 1 to `LONGEST_EXTENSION_DAYS`.
        """
        return self._writer.submit(ledger_due.extend, Extension(request_id, days, reason)).result()

    def mark(self) -> LedgerMark:
        """Return what tells later whether this is still the ledger that it is now."""
        with self._reading() as connection:
            return LedgerMark.of(connection)

    def continues(self, mark: LedgerMark) -> bool:
        """Return whether the ledger goes on from an earlier mark; it does not if a copy took its place."""
        with self._reading() as connection:
            return mark.is_in(connection)

    def open_round(self, number: int) -> None:
        """Write down that a round of training begins."""
        self._writer.submit(_write_rounds, number).result()

    def announcements(self, stop: threading.Event) -> Announcements:
        """Return what waits until another process may have written orders, or until `stop` is set."""
        try:
            return Announcements(self._engine, stop)
        except DBAPIError as error:
            raise ServiceUnavailable(f"the ledger {self.name} cannot be used: {error.orig}; try again") from None

    def _tell(self, events: Sequence[Event]) -> None:
        for listener in self._listeners:
            listener(events)


def _write_rounds(transaction: Transaction, numbers: Sequence[int]) -> list[None]:
    rows = [{"number": number, "opened_at": transaction.at} for number in numbers]
    transaction.connection.execute(insert(RoundRow), rows)
    hit(Failpoint.ROUND_BEFORE_COMMIT)
    return [None] * len(numbers)
