"""What descends from what: releases of shared weights, the sites' parts in them, and models that receipts name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import Connection, and_, func, select

from fedmunkey.common.deletions.states import SiteState
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signing.statements import read_envelope
from fedmunkey.server.database.tables import (
    ANSWERS_ORDER,
    AcknowledgementRow,
    ContributionRow,
    EventRow,
    OrderRow,
    ReleaseRow,
    RequestRow,
)
from fedmunkey.server.ledger.listing import LedgerLists
from fedmunkey.server.ledger.renewals import find_erased_since, release_of

MOST_REQUESTS = 100
"""Requests that are named of those that have erased what a release holds."""

_READ_AT_ONCE = 1000


@dataclass(frozen=True)
class Release:
    """Shared weights that were solved for.

    Attributes
    ----------
    digest : str
        SHA-256 of the weights, hexadecimal.
    given_at : datetime, optional
        When every site that had a part in them had them; None before.
    records, sites : int
        Of how many records they were solved, and how many sites had a part in them.
    again : int, optional
        The release of which these are the weights once more; None for those that were solved for anew.
    holds : bool
        Whether something was erased since that they were solved with.
    """

    number: int
    digest: str
    records: int
    released_at: datetime
    given_at: datetime | None
    sites: int
    again: int | None
    holds: bool


@dataclass(frozen=True)
class Part:
    """A site's part in a release: what it had erased up to its `last_order` is not in it; `signed` if it said so."""

    site: str
    last_order: int
    signed: bool


@dataclass(frozen=True)
class NamedModel:
    """A model that a site gave away and that its receipt for a request names: it must be replaced."""

    digest: str
    site: str
    request_id: str
    at: datetime


class LedgerLineage(LedgerLists):
    """What a console shows of a ledger's releases."""

    def releases(self, page: int, size: int) -> tuple[tuple[Release, ...], int]:
        """Return a page of the releases, numbered from 1 and the last release first, and how many there are."""
        with self._reading() as connection:
            total = connection.scalar(select(func.count(ReleaseRow.number))) or 0
            chosen = select(ReleaseRow).order_by(ReleaseRow.number.desc()).offset(size * (page - 1)).limit(size)
            return tuple(_read_releases(connection, chosen)), total

    def release(self, number: int) -> Release | None:
        """Return one release, None if there is none of that number."""
        with self._reading() as connection:
            return next(_read_releases(connection, select(ReleaseRow).where(ReleaseRow.number == number)), None)

    def parts(self, release: int) -> tuple[Part, ...]:
        """Return the sites' parts in a release, in alphabetical order."""
        columns = (ContributionRow.site, ContributionRow.last_order, ContributionRow.statement.is_not(None))
        with self._reading() as connection:
            rows = connection.execute(select(*columns).where(ContributionRow.release == release)).all()
        return tuple(sorted((Part(*row) for row in rows), key=lambda part: part.site))

    def erasing(self, release: int) -> tuple[str, ...]:
        """Return some of the requests, by id, whose records a release was solved with and that are gone since.

        At most `MOST_REQUESTS` of them, for of an old release that may be nearly all there are.
        """
        with self._reading() as connection:
            return tuple(islice(find_erased_since(connection, release), MOST_REQUESTS))

    def some_erased_since(self, digest: str, most: int = MOST_REQUESTS) -> tuple[str, ...]:
        """Return some of the requests, by id, that have erased what weights, by their digest, were solved with."""
        with self._reading() as connection:
            release = release_of(connection, digest)
            return () if release is None else tuple(islice(find_erased_since(connection, release), most))

    def named_models(self, after: int, most: int = _READ_AT_ONCE) -> tuple[tuple[NamedModel, ...], int]:
        """Return the models that receipts name which came with some events after one, and the last of these events.

        Where the last event is the one that was given, there are no more receipts.
        """
        rows = (
            select(EventRow.event, EventRow.at, EventRow.site, RequestRow.request_id, AcknowledgementRow.receipt)
            .join(OrderRow, and_(OrderRow.request == EventRow.request, OrderRow.site == EventRow.site))
            .join(AcknowledgementRow, ANSWERS_ORDER)
            .join(RequestRow, RequestRow.number == EventRow.request)
            .where(EventRow.event > after, EventRow.after == SiteState.ERASED.value, EventRow.site != "")
            .order_by(EventRow.event)
            .limit(most)
        )
        found = []
        with self._reading() as connection:
            for row in connection.execute(rows):
                after = row.event
                named = _exported(row.receipt) if row.receipt else ()
                found += [NamedModel(digest, row.site, row.request_id, row.at) for digest in named]
        return tuple(found), after


def _read_releases(connection: Connection, chosen: Any) -> Iterator[Release]:
    rows = connection.execute(chosen.with_only_columns(*ReleaseRow.__table__.columns)).all()
    numbers = [row.number for row in rows]
    counted = select(ContributionRow.release, func.count()).where(ContributionRow.release.in_(numbers))
    sites = {row[0]: row[1] for row in connection.execute(counted.group_by(ContributionRow.release))}
    first = select(ReleaseRow.digest, func.min(ReleaseRow.number)).where(
        ReleaseRow.digest.in_([row.digest for row in rows])
    )
    begun = {row[0]: row[1] for row in connection.execute(first.group_by(ReleaseRow.digest))}
    for row in rows:
        again = begun[row.digest] if begun[row.digest] != row.number else None
        holds = next(find_erased_since(connection, row.number), None) is not None
        yield Release(
            row.number, row.digest, row.records, row.released_at, row.given_at, sites.get(row.number, 0), again, holds
        )


def _exported(receipt: bytes) -> tuple[str, ...]:
    try:
        return Receipt.of(read_envelope(receipt)).exported
    except InvalidProof:
        # Receipts are checked before they are entered; one of another version is read by that version.
        return ()
