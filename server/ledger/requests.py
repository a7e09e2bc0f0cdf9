"""Writing requests and their orders, all or nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, bindparam, insert, select, update

from fedmunkey.common.deletions.states import RequestState, SiteState
from fedmunkey.common.deletions.words import (
    FORMER_OFFICER,
    OFFICER,
    DeletionRequest,
    Records,
    RequestStatus,
    SiteProgress,
    Subject,
)
from fedmunkey.common.errors import DeletionExists, FedmunkeyError, InvalidDeletion, UnknownDeletion
from fedmunkey.common.failpoints import Failpoint, hit
from fedmunkey.server.database.tables import BLOCK, RECORDS, SITE, SUBJECT, OrderRow, ReferencesRow, RequestRow, SiteRow
from fedmunkey.server.ledger.instructions import StandingReader
from fedmunkey.server.ledger.policy import addressed_sites, addresses_everyone
from fedmunkey.server.ledger.request_rows import read_statuses
from fedmunkey.server.ledger.writer import Event, Transaction
from fedmunkey.server.transparency_log.leaves import append_leaves, leaf_of_request

_SET_LAST_NUMBER = (
    update(SiteRow).where(SiteRow.name == bindparam("of_site")).values(last_number=bindparam("to_number"))
)
_INSERT_REQUEST = insert(RequestRow).returning(RequestRow.number, sort_by_parameter_order=True)
_KNOWN = select(*RequestRow.__table__.columns).where(
    RequestRow.request_id.in_(bindparam("request_ids", expanding=True))
)
_MEMBERS = select(SiteRow.name, SiteRow.last_number).where(SiteRow.left_at.is_(None))
_MEMBERS_NAMED = _MEMBERS.where(SiteRow.name.in_(bindparam("names", expanding=True)))
_STEPS = (RequestState.RECEIVED, RequestState.VERIFIED, RequestState.DISPATCHED)


@dataclass(frozen=True)
class Entry:
    """A request to be written.

    It is late from `due` after its submission. The sites get an order; None lets the policy say which. With `logged`,
    it bears a signature that was checked and goes into the transparency log. `standing` has the holds that may keep it
    out; None where there is none.
    """

    request: DeletionRequest
    due: timedelta
    sites: Collection[str] | None = None
    logged: bool = False
    standing: StandingReader | None = None


def content_digest(request: DeletionRequest) -> bytes:
    """Return the SHA-256 of all that makes a request this request, its id and signature left out.

    Requester, kind and site are each preceded by their length in 8 bytes, references follow in ascending order.
    """
    values = _target_values(request)
    digest = hashlib.sha256()
    requester = FORMER_OFFICER if request.requester == OFFICER else request.requester
    for part in (requester, values["target_kind"], values["target_site"]):
        encoded = str(part).encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    digest.update(values["subject_reference"] or b"")
    for reference in _sorted_references(request):
        digest.update(reference)
    return digest.digest()


def enter(transaction: Transaction, entries: Sequence[Entry]) -> list[RequestStatus | FedmunkeyError]:
    """Write requests with all that belongs to them; a request that is known already changes nothing."""
    there = _find_known(transaction, [entry.request.request_id for entry in entries])
    sites = _find_sites(transaction, entries)
    answers: list[RequestStatus | FedmunkeyError | None] = [None] * len(entries)
    first_of: dict[str, int] = {}
    admitted: list[tuple[int, Collection[str]]] = []
    for place, entry in enumerate(entries):
        row = there.get(entry.request.request_id)
        first = first_of.setdefault(entry.request.request_id, place)
        try:
            if row is not None:
                _check_same(entry.request, row.content_digest)
            elif first != place:
                _check_same(entry.request, content_digest(entries[first].request))
            else:
                if entry.standing is not None:
                    entry.standing.check_held(transaction.connection, entry.request)
                admitted.append((place, _address(entry, sites)))
        except InvalidDeletion as error:
            answers[place] = error
            if first == place and row is None:
                # The next with this id is the first that may be written.
                del first_of[entry.request.request_id]
    for (place, _), status in zip(admitted, _write(transaction, entries, admitted, sites), strict=True):
        answers[place] = status
        hit(Failpoint.SUBMIT_BEFORE_COMMIT)
    _answer_known(transaction, entries, there, answers)
    for place, entry in enumerate(entries):
        if answers[place] is None:
            answers[place] = answers[first_of[entry.request.request_id]]
    return [answer for answer in answers if answer is not None]


def number_orders(
    transaction: Transaction, orders: Iterable[tuple[int, Collection[str]]], last: dict[str, int]
) -> list[dict[str, int]]:
    """Write orders for requests, each with the sites that get one, and return their numbers by site for each request.

    The transaction has the database to itself, so numbers have neither gaps nor duplicates; `last`, the number of each
    site's last order, is brought up to date.
    """
    rows: list[dict[str, Any]] = []
    numbers = []
    for request, sites in orders:
        given = {}
        for site in sorted(sites):
            last[site] += 1
            given[site] = last[site]
            rows.append({"site": site, "number": last[site], "request": request, "state": SiteState.PENDING.value})
        numbers.append(given)
    if rows:
        transaction.connection.execute(insert(OrderRow), rows)
        moved = {row["site"] for row in rows}
        transaction.connection.execute(
            _SET_LAST_NUMBER, [{"of_site": site, "to_number": last[site]} for site in sorted(moved)]
        )
    return numbers


def _write(
    transaction: Transaction,
    entries: Sequence[Entry],
    admitted: Sequence[tuple[int, Collection[str]]],
    last: dict[str, int],
) -> list[RequestStatus]:
    chosen = [entries[place] for place, _ in admitted]
    if not chosen:
        return []
    numbers = _insert_requests(transaction, chosen)
    for number in numbers:
        before = ""
        for step in _STEPS:
            transaction.record(Event(transaction.at, number, "", before, step.value))
            before = step.value
    append_leaves(
        transaction.connection,
        [
            leaf_of_request(entry.request.request_id, entry.request.signature, sorted(sites))
            for entry, (_, sites) in zip(chosen, admitted, strict=True)
            if entry.logged
        ],
    )
    orders = zip(numbers, (sites for _, sites in admitted), strict=True)
    given = number_orders(transaction, orders, last)
    return [
        RequestStatus(
            entry.request,
            transaction.at,
            tuple(SiteProgress(site, order, SiteState.PENDING) for site, order in places.items()),
            RequestState.DISPATCHED,
            transaction.at + entry.due,
        )
        for entry, places in zip(chosen, given, strict=True)
    ]


def _insert_requests(transaction: Transaction, entries: Sequence[Entry]) -> list[int]:
    """Write requests with their references; return their numbers."""
    heads = [
        {
            "request_id": entry.request.request_id,
            "requester": entry.request.requester,
            **_target_values(entry.request),
            "submitted_at": transaction.at,
            "content_digest": content_digest(entry.request),
            "signature": entry.request.signature or None,
            "everyone": addresses_everyone(entry.request),
            "state": RequestState.DISPATCHED.value,
            "due_at": transaction.at + entry.due,
        }
        for entry in entries
    ]
    numbers = list(transaction.connection.scalars(_INSERT_REQUEST, heads))
    blocks = [
        {"request": number, "first": first, "block": b"".join(references[first : first + BLOCK])}
        for number, entry in zip(numbers, entries, strict=True)
        for references in [_sorted_references(entry.request)]
        for first in range(0, len(references), BLOCK)
    ]
    if blocks:
        transaction.connection.execute(insert(ReferencesRow), blocks)
    return numbers


def _find_known(transaction: Transaction, request_ids: Collection[str]) -> dict[str, Row[Any]]:
    found = transaction.connection.execute(_KNOWN, {"request_ids": list(set(request_ids))})
    return {row.request_id: row for row in found}


def _find_sites(transaction: Transaction, entries: Sequence[Entry]) -> dict[str, int]:
    """Return the sites that requests may concern, all that are in the federation or fewer, with their last numbers."""
    if any(entry.sites is None and addresses_everyone(entry.request) for entry in entries):
        rows = transaction.connection.execute(_MEMBERS)
    else:
        named = {name for entry in entries for name in _names(entry)} - {OFFICER}
        rows = transaction.connection.execute(_MEMBERS_NAMED, {"names": list(named)})
    return {row.name: row.last_number for row in rows}


def _names(entry: Entry) -> set[str]:
    if entry.sites is not None:
        return set(entry.sites)
    return {entry.request.requester, str(_target_values(entry.request)["target_site"])}


def _address(entry: Entry, registered: Collection[str]) -> Collection[str]:
    """Return the sites that get an order; raises `InvalidDeletion` if the policy or the ledger refuses."""
    if entry.sites is None:
        return addressed_sites(entry.request, registered)
    if missing := set(entry.sites) - set(registered):
        raise UnknownDeletion(f"site {min(missing)!r} is not registered")
    return entry.sites


def _answer_known(
    transaction: Transaction,
    entries: Sequence[Entry],
    known: dict[str, Row[Any]],
    answers: list[RequestStatus | FedmunkeyError | None],
) -> None:
    places = [
        place for place, entry in enumerate(entries) if answers[place] is None and entry.request.request_id in known
    ]
    if places:
        rows = [known[entries[place].request.request_id] for place in places]
        for place, status in zip(places, read_statuses(transaction.connection, rows, transaction.at), strict=True):
            answers[place] = status


def _check_same(request: DeletionRequest, digest: bytes | None) -> None:
    if content_digest(request) != digest:
        raise DeletionExists(f"request id {request.request_id!r} stands for another request already; choose another id")


def _sorted_references(request: DeletionRequest) -> list[bytes]:
    return sorted(request.target.references) if isinstance(request.target, Records) else []


def _target_values(request: DeletionRequest) -> dict[str, Any]:
    target = request.target
    if isinstance(target, Records):
        kind, site, subject, count = RECORDS, target.site, None, len(target.references)
    elif isinstance(target, Subject):
        kind, site, subject, count = SUBJECT, "", target.reference, 0
    else:
        kind, site, subject, count = SITE, target.site, None, 0
    return {
        "target_kind": kind,
        "target_site": site,
        "subject_reference": subject,
        "reference_count": count,
    }
