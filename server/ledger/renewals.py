"""What was released, and which deletions the released weights do not know of yet.

The sites answer from the last release that was given out, and some of them from one after it, where a round ended
between writing it down and giving it to all: what either was solved with is owed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update

from fedmunkey.common.deletions.renewals import ReleasedWeights, RenewalNeed, SiteContribution, StillHeld
from fedmunkey.common.deletions.states import RequestState, SiteState
from fedmunkey.common.errors import InvalidDeletion, RefusedContributions
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.proofs.contributions import ReleaseNote, contribution_digest
from fedmunkey.server.database.tables import (
    ANSWERS_ORDER,
    AcknowledgementRow,
    ContributionRow,
    OrderRow,
    ReleaseRow,
    RequestRow,
    SiteRow,
)
from fedmunkey.server.transparency_log.leaves import Leaf, leaf_of_release

_GIVEN = select(func.max(ReleaseRow.number)).where(ReleaseRow.given_at.is_not(None))
_HELD = (
    select(ContributionRow.site, func.min(ContributionRow.last_order).label("last_order"))
    .where(ContributionRow.release.between(bindparam("first"), bindparam("last")))
    .group_by(ContributionRow.site)
    .subquery()
)
_OWED = (
    select(OrderRow.request, AcknowledgementRow.document, AcknowledgementRow.acknowledged_at, RequestRow.renew_by)
    .join(_HELD, (_HELD.c.site == OrderRow.site) & (OrderRow.number > _HELD.c.last_order))
    .join(AcknowledgementRow, ANSWERS_ORDER)
    .join(RequestRow, RequestRow.number == OrderRow.request)
    .where(OrderRow.state == SiteState.ERASED.value)
)
_OWED_BY = _OWED.where(OrderRow.request.in_(bindparam("requests", expanding=True)))
_READ_AT_ONCE = 1000
_FAR = 2**31 - 1
"""Above every number of a release."""


@dataclass(frozen=True)
class Owed:
    """An order that erased entries which weights in use were solved with, and when its site said so.

    `promised` is by when its request was to be renewed, as the ledger has it.
    """

    request: int
    entries: int
    at: datetime
    promised: datetime | None

    def due(self, renew: timedelta) -> datetime:
        """Return by when it must be out of the weights, where nothing was promised so long after it was erased."""
        return self.promised if self.promised and self.promised >= self.at else self.at + renew


def write_release(connection: Connection, released: ReleasedWeights, at: datetime) -> Leaf:
    """Write a release down, and return its leaf for the log."""
    number = connection.scalar(
        insert(ReleaseRow).returning(ReleaseRow.number),
        {"digest": released.digest, "records": released.records, "released_at": at},
    )
    if released.contributions:
        connection.execute(
            insert(ContributionRow),
            [
                {
                    "release": number,
                    "site": one.site,
                    "last_order": one.last_order,
                    "statement": one.statement or None,
                }
                for one in released.contributions
            ],
        )
    said = {one.site: contribution_digest(one.statement) if one.statement else None for one in released.contributions}
    return leaf_of_release(int(number or 0), ReleaseNote(released.digest, released.changed, said).leaf())


def read_owed(
    connection: Connection, requests: Collection[int] | None = None, release: int | None = None
) -> Iterator[Owed]:
    """Yield the orders, of some requests or of all, whose entries are in a release, by default in any that is in use.

    A site that did not take part in the release has nothing in it.
    """
    bounds = (connection.scalar(_GIVEN) or 0, _FAR) if release is None else (release, release)
    values: dict[str, Any] = {"first": bounds[0], "last": bounds[1]}
    if requests is not None:
        values["requests"] = list(requests)
    for row in connection.execute(_OWED if requests is None else _OWED_BY, values):
        answer = json.loads(row.document)
        if answer["entries"] and answer["guarantee"] == Guarantee.EXACT.value:
            yield Owed(row.request, int(answer["entries"]), row.acknowledged_at, row.renew_by)


def release_of(connection: Connection, digest: str) -> int | None:
    """Return the last release of weights, by their digest; None if the ledger has none."""
    return connection.scalar(select(func.max(ReleaseRow.number)).where(ReleaseRow.digest == digest))


def erased_since(connection: Connection, release: int) -> tuple[str, ...]:
    """Return the requests, by id, whose records a release was solved with and that are gone from their sites since.

    A site that left before it answered an order counts as well: what it held is in no later release. Oldest first.
    """
    return tuple(find_erased_since(connection, release, RequestRow.number))


def find_erased_since(connection: Connection, release: int, *order: Any) -> Iterator[str]:
    """Yield the same, in an order or in none, reading no further than is asked: of an old release it may be nearly all.

    Without an order, the first is found at once.
    """
    rows = connection.execute(
        select(RequestRow.request_id, AcknowledgementRow.document)
        .join(OrderRow, OrderRow.request == RequestRow.number)
        .join(ContributionRow, (ContributionRow.site == OrderRow.site) & (ContributionRow.release == release))
        .outerjoin(AcknowledgementRow, ANSWERS_ORDER)
        .where(
            OrderRow.state.in_([SiteState.ERASED.value, SiteState.LEFT.value]),
            OrderRow.number > ContributionRow.last_order,
        )
        .order_by(*order)
        .execution_options(yield_per=_READ_AT_ONCE)
    )
    seen: set[str] = set()
    with rows:
        for row in rows:
            if row.request_id not in seen and (row.document is None or json.loads(row.document)["entries"]):
                seen.add(row.request_id)
                yield row.request_id


def write_release_again(connection: Connection, release: int, at: datetime) -> Leaf:
    """Write a release down once more, with the contributions that it had, and return its leaf for the log."""
    former = connection.execute(select(ReleaseRow.digest, ReleaseRow.records).where(ReleaseRow.number == release)).one()
    parts = connection.execute(
        select(ContributionRow.site, ContributionRow.last_order, ContributionRow.statement)
        .where(ContributionRow.release == release)
        .order_by(ContributionRow.site)
    )
    contributions = tuple(SiteContribution(row.site, row.last_order, row.statement or b"") for row in parts)
    last = connection.scalar(select(ReleaseRow.records).order_by(ReleaseRow.number.desc()).limit(1)) or 0
    # As far as totals tell.
    changed = abs(former.records - last)
    return write_release(connection, ReleasedWeights(former.digest, former.records, changed, contributions), at)


def read_need(connection: Connection, renew: timedelta) -> RenewalNeed:
    """Return what is owed.

    Sites keep their promise from their own deletion on, so a request that waits for another site, or is late, or was
    refused elsewhere, makes a renewal due as well: so long after its first site had erased.
    """
    owed = list(read_owed(connection))
    given = connection.scalar(_GIVEN)
    later = _read_later(connection, given or 0)
    return RenewalNeed(
        sum(one.entries for one in owed),
        min((one.due(renew) for one in owed), default=None),
        connection.scalar(select(ReleaseRow.records).where(ReleaseRow.number == given)),
        (*(held for held, _ in later), *_read_undone(connection, given or 0)),
        min((at for _, at in later), default=None),
    )


def _read_later(connection: Connection, given: int) -> list[tuple[StillHeld, datetime]]:
    """Return the releases after one, and when they were written down: some sites may have them, and not all do."""
    rows = connection.execute(
        select(ReleaseRow.number, ReleaseRow.records, ReleaseRow.released_at).where(ReleaseRow.number > given)
    ).all()
    return [(_still_held(connection, row.number, row.records), row.released_at) for row in rows]


def _read_undone(connection: Connection, given: int) -> Iterator[StillHeld]:
    """Yield the releases that one has undone, being an earlier one again; whoever kept them has them still."""
    rows = connection.execute(
        select(ReleaseRow.number, ReleaseRow.digest, ReleaseRow.records)
        .where(ReleaseRow.number <= given)
        .order_by(ReleaseRow.number.desc())
    ).all()
    if not any(row.digest == rows[0].digest for row in rows[1:]):
        return
    for row in rows[1:]:
        if row.digest == rows[0].digest:
            return
        yield _still_held(connection, row.number, row.records)


def _still_held(connection: Connection, release: int, records: int) -> StillHeld:
    return StillHeld(sum(one.entries for one in read_owed(connection, release=release)), records)


def give_out(connection: Connection, digest: str, sites: Collection[str], at: datetime) -> tuple[str, ...] | None:
    """Note that sites have taken the last release of some weights over; return which of its contributors have not.

    With all of them, or those that are still in the federation, it is given out. None if there is no such release.
    """
    release = release_of(connection, digest)
    if release is None:
        return None
    contributed = (
        select(ContributionRow.site)
        .join(SiteRow, SiteRow.name == ContributionRow.site)
        .where(ContributionRow.release == release, SiteRow.left_at.is_(None))
        .order_by(ContributionRow.site)
    )
    lacking = tuple(site for site in connection.scalars(contributed) if site not in sites)
    if not lacking:
        connection.execute(update(ReleaseRow).where(ReleaseRow.number == release).values(given_at=at))
    return lacking


def waiting_requests(connection: Connection) -> Sequence[int]:
    """Return the requests that wait for nothing but renewed weights."""
    states = (RequestState.ERASED.value, RequestState.OVERDUE.value)
    return connection.scalars(
        select(RequestRow.number).where(RequestRow.state.in_(states), RequestRow.renew_by.is_not(None))
    ).all()


def last_contributions(connection: Connection) -> dict[str, int]:
    """Return after which order each site contributed to the last release."""
    last = select(func.max(ReleaseRow.number)).scalar_subquery()
    rows = connection.execute(
        select(ContributionRow.site, ContributionRow.last_order).where(ContributionRow.release == last)
    )
    return {row.site: row.last_order for row in rows}


def check_contributions(released: ReleasedWeights, orders: Mapping[str, int], last: Mapping[str, int]) -> None:
    """Check the contributions to a release, given each site's last order and its contribution to the last release.

    A site that says more than it was ordered would have its later orders taken for renewed. Raises
    `RefusedContributions` if one does, and `InvalidDeletion` if one contributed twice, or after fewer orders than to
    the last release: another round has overtaken this one, and its weights would bring back what is gone.
    """
    sites = [one.site for one in released.contributions]
    if len(set(sites)) < len(sites):
        raise InvalidDeletion("the release is not written down: a site contributed to it twice")
    faults = {
        one.site: f"it says that it contributed after order {one.last_order}, and this ledger ends at its order "
        f"{orders.get(one.site, 0)}: the site follows another ledger, or this is an older copy; start its agent, and "
        "run another round"
        for one in released.contributions
        if not 0 <= one.last_order <= orders.get(one.site, 0)
    }
    if faults:
        raise RefusedContributions(faults)
    for one in released.contributions:
        if one.last_order < last.get(one.site, 0):
            raise InvalidDeletion(
                f"the release is not written down: site {one.site!r} contributed to it after order {one.last_order}, "
                f"and to the last release after order {last[one.site]}, so a later round has ended first; run "
                "another"
            )


def find_renewal(connection: Connection, orders: Collection[tuple[str, int]]) -> tuple[int, dict[str, bytes]] | None:
    """Return the first release given out that was solved without what some orders, by site and number, have erased.

    With it come the sites' signed contributions. None if there is none, or a site has not signed.
    """
    sites = dict(orders)
    rows = connection.execute(
        select(ContributionRow.release, ContributionRow.site, ContributionRow.last_order, ContributionRow.statement)
        .join(ReleaseRow, ReleaseRow.number == ContributionRow.release)
        .where(ContributionRow.site.in_(sites), ReleaseRow.given_at.is_not(None))
        .order_by(ContributionRow.release)
    ).all()
    releases: dict[int, dict[str, Any]] = {}
    for row in rows:
        releases.setdefault(row.release, {})[row.site] = row
    for number, parts in releases.items():
        covers = parts.keys() == sites.keys() and all(parts[site].last_order >= last for site, last in sites.items())
        if covers and all(part.statement for part in parts.values()):
            return number, {site: part.statement for site, part in parts.items()}
    return None
