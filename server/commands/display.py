"""How `munkey-server` shows requests and sites: tables for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.table import Table

from fedmunkey.common.deletions import status_words
from fedmunkey.common.deletions.words import Move, Records, RequestState, RequestStatus, Subject
from fedmunkey.common.errors import count_of
from fedmunkey.common.identities.member_names import MemberRole
from fedmunkey.common.programs import command_line
from fedmunkey.common.proofs.duties import Duty, duty_words
from fedmunkey.server.ledger.ledger import RegisteredSite
from fedmunkey.server.ledger.view import Summary
from fedmunkey.server.members.register import Member

_REQUEST_WORDS = ("request", "requester", "target", "submitted", "due", "state", "guarantee", "epsilon")
_REQUEST_NUMBERS = ("answered", "records", "seconds")


def member_table(members: Sequence[Member], now: datetime) -> Table:
    """Return one row for each certificate of a member."""
    table = command_line.plain_table("name", "role", "state", "joined", "good until", "serial", "may", "reason")
    for member in members:
        state = member.state(now)
        table.add_row(
            member.name,
            member.role.value,
            state,
            show_time(member.joined_at),
            show_time(member.not_after),
            member.serial[:16],
            "" if member.role is MemberRole.COORDINATOR else duty_words(member.duties),
            member.reason,
        )
    return table


def member_document(member: Member, now: datetime) -> dict[str, Any]:
    """Return a member's certificate as JSON; times are ISO 8601 in UTC."""
    return {
        "name": member.name,
        "role": member.role.value,
        "state": member.state(now),
        "serial": member.serial,
        "fingerprint": member.fingerprint,
        "joined_at": member.joined_at.isoformat(),
        "not_after": member.not_after.isoformat(),
        "replaced_at": member.replaced_at.isoformat() if member.replaced_at else None,
        "revoked_at": member.revoked_at.isoformat() if member.revoked_at else None,
        "reason": member.reason,
        "may": [] if member.role is MemberRole.COORDINATOR else [duty for duty in Duty if duty in member.duties],
    }


def request_table(statuses: list[RequestStatus]) -> Table:
    """Return one row for each request."""
    table = command_line.plain_table(*_REQUEST_WORDS, numbers=_REQUEST_NUMBERS)
    for status in statuses:
        guarantee = status_words.weakest_guarantee(status)
        answered = sum(progress.state.answered for progress in status.sites)
        table.add_row(
            status.request.request_id,
            status.request.requester,
            _target(status),
            show_time(status.submitted_at),
            f"{status.due_at:%Y-%m-%d}" if status.due_at else "",
            f"{status.state}, renewed by {status.renew_by:%Y-%m-%d}"
            if status.renewal_owed and status.renew_by
            else status.state.value,
            guarantee.value if guarantee else "",
            status_words.loss_words(status_words.combined_loss(status)),
            f"{answered}/{len(status.sites)}",
            str(status.erased),
            "" if status.seconds is None else f"{status.seconds:.3f}",
        )
    return table


def history_table(moves: tuple[Move, ...]) -> Table:
    """Return one row for each move of a request."""
    table = command_line.plain_table("time", "site", "from", "to", "why")
    for move in moves:
        table.add_row(show_time(move.at), move.site, move.before, move.after, move.reason)
    return table


def request_document(status: RequestStatus, moves: tuple[Move, ...] | None = None) -> dict[str, Any]:
    """Return a request as JSON, with its history if that is given; times are ISO 8601 in UTC."""
    document = status_words.status_document(status)
    if moves is not None:
        document["history"] = [
            {
                "at": move.at.isoformat(),
                "site": move.site or None,
                "from": move.before or None,
                "to": move.after,
                "reason": move.reason,
            }
            for move in moves
        ]
    return document


def site_table(sites: tuple[RegisteredSite, ...]) -> Table:
    """Return one row for each site."""
    table = command_line.plain_table("site", "registered", "state", "last seen", numbers=("orders", "pending"))
    for site in sites:
        table.add_row(
            site.name,
            show_time(site.registered_at),
            _site_state(site),
            show_time(site.seen_at) if site.seen_at else "never",
            str(site.orders),
            str(site.pending),
        )
    return table


def site_document(site: RegisteredSite) -> dict[str, Any]:
    """Return a site as JSON; times are ISO 8601 in UTC."""
    return {
        "site": site.name,
        "registered_at": site.registered_at.isoformat(),
        "orders": site.orders,
        "pending": site.pending,
        "state": _site_state(site),
        "left_at": site.left_at.isoformat() if site.left_at else None,
        "seen_at": site.seen_at.isoformat() if site.seen_at else None,
    }


def summary_lines(summary: Summary) -> list[str]:
    """Return what a person should know at a glance."""
    counts = ", ".join(f"{count} {state}" for state, count in summary.requests.items() if count) or "none"
    late = summary.requests[RequestState.OVERDUE]
    oldest = f", the oldest since {show_time(summary.oldest_pending)}" if summary.oldest_pending else ""
    owed = f"{summary.renewals_owed} by {show_time(summary.renew_by)}" if summary.renew_by else ""
    overdue = ", WHICH HAS PASSED: munkey-server run --renew --now" if summary.renewal_late_seconds else ""
    return [
        f"sites: {summary.connected_sites} of {summary.sites} connected",
        f"requests: {counts}",
        f"pending orders: {summary.pending_orders}{oldest}",
        f"late: {late}" + (" (munkey-server requests --late lists them)" if late else ""),
        *([f"waiting for renewed weights: {owed}{overdue}"] if owed else []),
        *(f"LOG RESTORED: {said.words}" for said in summary.restored),
        *(
            f"LOST: request {lost.request_id}, which {', '.join(lost.sites)} answered, is not in this ledger; have it "
            f"asked again with --request-id {lost.request_id}"
            for lost in summary.lost
        ),
    ]


def summary_document(summary: Summary, sites: tuple[RegisteredSite, ...]) -> dict[str, Any]:
    """Return the same as JSON; times are ISO 8601 in UTC."""
    return {
        "connected_sites": summary.connected_sites,
        "requests": {state.value: count for state, count in summary.requests.items()},
        "pending_orders": summary.pending_orders,
        "oldest_pending": summary.oldest_pending.isoformat() if summary.oldest_pending else None,
        "oldest_pending_seconds": summary.oldest_seconds,
        "late": summary.requests[RequestState.OVERDUE],
        "renewals_owed": summary.renewals_owed,
        "renew_by": summary.renew_by.isoformat() if summary.renew_by else None,
        "renewal_late_seconds": summary.renewal_late_seconds,
        "log_restored": [
            {"kept": said.kept.size, "reason": said.reason, "said_at": said.time.isoformat()}
            for said in summary.restored
        ],
        "lost_requests": [
            {"request_id": lost.request_id, "digest": lost.digest.hex(), "sites": list(lost.sites)}
            for lost in summary.lost
        ],
        "sites": [site_document(site) for site in sites],
    }


def show_time(time: datetime) -> str:
    """Return a time for people, to the second."""
    return f"{time:%Y-%m-%d %H:%M:%S}Z"


def _site_state(site: RegisteredSite) -> str:
    if site.left_at is not None:
        return "left"
    return "connected" if site.connected else "away"


def _target(status: RequestStatus) -> str:
    target = status.request.target
    if isinstance(target, Records):
        where = f"at {target.site}" if target.site else "anywhere"
        return f"{count_of(len(target.references), 'record')} {where}"
    if isinstance(target, Subject):
        return f"subject {target.reference.hex()[:12]}"
    return f"all of {target.site}"
