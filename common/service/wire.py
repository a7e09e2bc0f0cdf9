"""Between the words of a deletion (`common.deletions.words`) and the messages that carry them (`deletion.proto`).

`..._to_wire` raises `InvalidDeletion` for what a message cannot carry, `..._from_wire` for a message that says nothing
this version understands: neither side may guess what is to be forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from fedmunkey.common.deletions.limits import LINE_CHARACTERS, is_line
from fedmunkey.common.deletions.renewals import ReleasedWeights, RenewalNeed, SiteContribution, StillHeld
from fedmunkey.common.deletions.words import (
    Acknowledgement,
    DeletionOrder,
    DeletionRequest,
    Move,
    Records,
    RequestState,
    RequestStatus,
    SiteProgress,
    SiteState,
    Subject,
    WholeSite,
)
from fedmunkey.common.errors import DeletionHeld, InvalidDeletion
from fedmunkey.common.proofs.log_heads import LogProof, LogUpdate
from fedmunkey.common.proofs.signing.statements import read_envelope
from fedmunkey.protos import deletion_pb2

MESSAGE_BYTES = 64 * 2**20
"""Size of the largest message that either side accepts."""

RETRY_AFTER = "fedmunkey-retry-after-ms"
"""What a service that has had too much of a caller says, at the end of a call: when it may be made again."""

MAXIMUM_REFERENCES = 10_000
"""Records that one request may name; whoever wants more forgotten makes several requests."""

_MOST_CARRIED = MESSAGE_BYTES // 34
"""As many whole references as a message holds."""

MAXIMUM_PAGE = 1000
"""Requests that one page may have."""

_STATES = {
    SiteState.PENDING: deletion_pb2.SITE_STATE_PENDING,
    SiteState.ERASED: deletion_pb2.SITE_STATE_ERASED,
    SiteState.NOTHING_HELD: deletion_pb2.SITE_STATE_NOTHING_HELD,
    SiteState.REFUSED: deletion_pb2.SITE_STATE_REFUSED,
    SiteState.DELIVERED: deletion_pb2.SITE_STATE_DELIVERED,
    SiteState.LEFT: deletion_pb2.SITE_STATE_LEFT,
}
_STATES_FROM_WIRE = {int(number): state for state, number in _STATES.items()}

_REQUEST_STATES: dict[RequestState | None, deletion_pb2.RequestState] = {
    None: deletion_pb2.REQUEST_STATE_UNSPECIFIED,
    RequestState.RECEIVED: deletion_pb2.REQUEST_STATE_RECEIVED,
    RequestState.VERIFIED: deletion_pb2.REQUEST_STATE_VERIFIED,
    RequestState.DISPATCHED: deletion_pb2.REQUEST_STATE_DISPATCHED,
    RequestState.COMPLETED: deletion_pb2.REQUEST_STATE_COMPLETED,
    RequestState.PARTIAL: deletion_pb2.REQUEST_STATE_PARTIAL,
    RequestState.REFUSED: deletion_pb2.REQUEST_STATE_REFUSED,
    RequestState.OVERDUE: deletion_pb2.REQUEST_STATE_OVERDUE,
    RequestState.ERASED: deletion_pb2.REQUEST_STATE_ERASED,
}
_REQUEST_STATES_FROM_WIRE = {int(number): state for state, number in _REQUEST_STATES.items()}


def check_size(request: DeletionRequest) -> None:
    """Check that a request may be made; raises `InvalidDeletion` if it names more than `MAXIMUM_REFERENCES` records."""
    if isinstance(request.target, Records) and len(request.target.references) > MAXIMUM_REFERENCES:
        raise InvalidDeletion(
            f"a request names {len(request.target.references)} records; "
            f"split it into requests of at most {MAXIMUM_REFERENCES}"
        )


def held_to_wire(held: DeletionHeld) -> deletion_pb2.SubmitResponse:
    """Write that a legal hold has kept a request out, and the receipt of that."""
    return deletion_pb2.SubmitResponse(blocked=held.receipt, holds=held.holds, hold_names=held.names)


def check_page_size(size: int) -> None:
    """Check the size of a page of requests; raises `InvalidDeletion` if it is not from 1 to `MAXIMUM_PAGE`."""
    if not 1 <= size <= MAXIMUM_PAGE:
        raise InvalidDeletion(f"a page of {size} requests is not possible; ask for 1 to {MAXIMUM_PAGE}")


def request_to_wire(request: DeletionRequest) -> deletion_pb2.DeletionRequest:
    """Write a request; the references of records are in ascending order, so equal requests have equal bytes."""
    with writing("a deletion request"):
        message = deletion_pb2.DeletionRequest(
            request_id=request.request_id, requester=request.requester, signature=request.signature
        )
        match request.target:
            case Records(references, site):
                message.records.references.extend(sorted(references))
                message.records.site = site
            case Subject(reference):
                message.subject_reference = reference
            case WholeSite(site):
                message.site = site
        return message


def request_from_wire(message: deletion_pb2.DeletionRequest) -> DeletionRequest:
    """Read a request; raises `InvalidDeletion` if it has no target, or a part is missing or of the wrong length."""
    kind = message.WhichOneof("target")
    target: Records | Subject | WholeSite
    if kind == "records":
        # Counted as they were sent, before anything is made of them; older ledgers hold requests with many.
        if (sent := len(message.records.references)) > _MOST_CARRIED:
            raise InvalidDeletion(f"a request names {sent} records; at most {_MOST_CARRIED} are read")
        target = Records(frozenset(message.records.references), message.records.site)
    elif kind == "subject_reference":
        target = Subject(message.subject_reference)
    elif kind == "site":
        target = WholeSite(message.site)
    else:
        raise InvalidDeletion("a deletion request names no target that this version knows")
    return DeletionRequest(message.request_id, message.requester, target, message.signature)


def order_to_wire(order: DeletionOrder) -> deletion_pb2.DeletionOrder:
    """Write an order."""
    with writing("a deletion order"):
        message = deletion_pb2.DeletionOrder(
            number=order.number, site=order.site, request=request_to_wire(order.request)
        )
    if order.answer is not None:
        message.answer.CopyFrom(acknowledgement_to_wire(order.answer))
    return message


def order_from_wire(message: deletion_pb2.DeletionOrder) -> DeletionOrder:
    """Read an order; raises `InvalidDeletion` as `request_from_wire` does."""
    answer = acknowledgement_from_wire(message.answer) if message.HasField("answer") else None
    return DeletionOrder(message.number, message.site, request_from_wire(message.request), answer)


def acknowledgement_to_wire(acknowledgement: Acknowledgement) -> deletion_pb2.Acknowledgement:
    """Write a site's answer."""
    with writing("an acknowledgement"):
        return deletion_pb2.Acknowledgement(
            site=acknowledgement.site, document=acknowledgement.to_json(), receipt=acknowledgement.receipt
        )


def acknowledgement_from_wire(message: deletion_pb2.Acknowledgement) -> Acknowledgement:
    """Read a site's answer.

    Raises `InvalidDeletion` if it is none that a site can give, or if it is of another site than the message says: who
    may answer is decided by what the message says.
    """
    acknowledgement = Acknowledgement.from_json(message.document, message.receipt)
    if acknowledgement.site != message.site:
        raise InvalidDeletion(f"an acknowledgement of site {message.site!r} holds one of {acknowledgement.site!r}")
    return acknowledgement


def progress_to_wire(progress: SiteProgress) -> deletion_pb2.SiteProgress:
    """Write one site's part in a request's status."""
    with writing("a site's progress"):
        message = deletion_pb2.SiteProgress(
            site=progress.site, number=progress.number, state=_STATES[progress.state], reason=progress.reason
        )
        if progress.acknowledgement is not None:
            message.acknowledgement.CopyFrom(acknowledgement_to_wire(progress.acknowledgement))
        if progress.acknowledged_at is not None:
            message.acknowledged_at.FromDatetime(progress.acknowledged_at)
        return message


def progress_from_wire(message: deletion_pb2.SiteProgress) -> SiteProgress:
    """Read one site's part in a request's status; raises `InvalidDeletion` for an unknown state, guarantee or time."""
    return SiteProgress(
        site=message.site,
        number=message.number,
        state=_state_from_wire(message.state),
        acknowledgement=(
            acknowledgement_from_wire(message.acknowledgement) if message.HasField("acknowledgement") else None
        ),
        acknowledged_at=time_from_wire(message.acknowledged_at) if message.HasField("acknowledged_at") else None,
        reason=message.reason,
    )


def status_to_wire(status: RequestStatus) -> deletion_pb2.RequestStatus:
    """Write a request and what has become of it; times are to the microsecond, in UTC."""
    with writing("a request's status"):
        message = deletion_pb2.RequestStatus(
            request=request_to_wire(status.request),
            sites=[progress_to_wire(progress) for progress in status.sites],
            state=request_state_to_wire(status.recorded),
            extension=status.extension,
        )
        message.submitted_at.FromDatetime(status.submitted_at)
        if status.due_at is not None:
            message.due_at.FromDatetime(status.due_at)
        if status.renew_by is not None:
            message.renew_by.FromDatetime(status.renew_by)
        return message


def status_from_wire(message: deletion_pb2.RequestStatus) -> RequestStatus:
    """Read a request's status; raises `InvalidDeletion` if any part of it cannot be read."""
    status = RequestStatus(
        request=request_from_wire(message.request),
        submitted_at=time_from_wire(message.submitted_at),
        sites=tuple(progress_from_wire(progress) for progress in message.sites),
        recorded=request_state_from_wire(message.state),
        due_at=time_from_wire(message.due_at) if message.HasField("due_at") else None,
        extension=message.extension,
        renew_by=time_from_wire(message.renew_by) if message.HasField("renew_by") else None,
    )
    shown = [text for progress in status.sites for text in (progress.site, progress.reason)]
    check_lines(status.request.request_id, status.extension, *shown)
    return status


def request_state_to_wire(state: RequestState | None) -> deletion_pb2.RequestState:
    """Write a request's state, or that it is to be derived from the sites'."""
    return _REQUEST_STATES[state]


def request_state_from_wire(number: int) -> RequestState | None:
    """Read what `request_state_to_wire` wrote; raises `InvalidDeletion` for a number that stands for nothing."""
    if number not in _REQUEST_STATES_FROM_WIRE:
        raise InvalidDeletion(f"a request has an unknown state ({int(number)})")
    return _REQUEST_STATES_FROM_WIRE[number]


def move_to_wire(move: Move) -> deletion_pb2.Move:
    """Write one line of a request's history."""
    with writing("a line of a request's history"):
        message = deletion_pb2.Move(site=move.site, before=move.before, after=move.after, reason=move.reason)
        message.at.FromDatetime(move.at)
        return message


def move_from_wire(message: deletion_pb2.Move) -> Move:
    """Read one line of a request's history; raises `InvalidDeletion` if its time is out of range."""
    check_lines(message.site, message.before, message.after, message.reason)
    return Move(time_from_wire(message.at), message.site, message.before, message.after, message.reason)


def check_lines(*texts: str) -> None:
    """Check what is about to be shown: a line break in a reason would look like a line of our own.

    Raises `InvalidDeletion`.
    """
    # The ledger says who left before it says why.
    if not all(is_line(text, 2 * LINE_CHARACTERS) for text in texts):
        raise InvalidDeletion("the service sent a text that is not one printable line; it is not shown")


def log_update_to_wire(update: LogUpdate | None) -> deletion_pb2.GetLogHeadResponse:
    """Write what is shown of the log; an empty message for no log."""
    if update is None:
        return deletion_pb2.GetLogHeadResponse()
    inclusions = [
        deletion_pb2.LogProof()
        if proof is None
        else deletion_pb2.LogProof(included=True, number=proof.number, path=proof.path)
        for proof in update.inclusions
    ]
    return deletion_pb2.GetLogHeadResponse(
        head=update.head.to_bytes(),
        consistency=update.consistency,
        inclusions=inclusions,
        restored=[envelope.to_bytes() for envelope in update.restored],
    )


def log_update_from_wire(message: deletion_pb2.GetLogHeadResponse) -> LogUpdate | None:
    """Read what is shown of the log; raises `InvalidProof` if its head is no envelope."""
    if not message.head:
        return None
    return LogUpdate(
        read_envelope(message.head),
        tuple(message.consistency),
        tuple(LogProof(proof.number, tuple(proof.path)) if proof.included else None for proof in message.inclusions),
        tuple(map(read_envelope, message.restored)),
    )


def release_to_wire(released: ReleasedWeights) -> deletion_pb2.NoteReleaseRequest:
    """Write what was released."""
    with writing("a release"):
        parts = [
            deletion_pb2.SiteContribution(site=one.site, last_order=one.last_order, statement=one.statement)
            for one in released.contributions
        ]
        return deletion_pb2.NoteReleaseRequest(
            digest=released.digest, records=released.records, changed=released.changed, contributions=parts
        )


def release_from_wire(message: deletion_pb2.NoteReleaseRequest) -> ReleasedWeights:
    """Read what was released."""
    parts = (SiteContribution(one.site, one.last_order, one.statement) for one in message.contributions)
    return ReleasedWeights(message.digest, message.records, message.changed, tuple(parts))


def need_to_wire(need: RenewalNeed) -> deletion_pb2.GetRenewalResponse:
    """Write what is owed."""
    message = deletion_pb2.GetRenewalResponse(entries=need.entries, records=need.records)
    if need.renew_by is not None:
        message.renew_by.FromDatetime(need.renew_by)
    if need.solved_at is not None:
        message.solved_at.FromDatetime(need.solved_at)
    for held in need.others:
        message.others.add(entries=held.entries, records=held.records)
    return message


def need_from_wire(message: deletion_pb2.GetRenewalResponse) -> RenewalNeed:
    """Read what is owed; raises `InvalidDeletion` if its time is out of range."""
    renew_by = time_from_wire(message.renew_by) if message.HasField("renew_by") else None
    solved_at = time_from_wire(message.solved_at) if message.HasField("solved_at") else None
    others = tuple(StillHeld(held.entries, held.records) for held in message.others)
    records = message.records if message.HasField("records") else None
    return RenewalNeed(message.entries, renew_by, records, others, solved_at)


def _state_from_wire(number: int) -> SiteState:
    state = _STATES_FROM_WIRE.get(number)
    if state is None:
        raise InvalidDeletion(f"a site's part has an unknown state ({int(number)})")
    return state


def time_from_wire(message: Any) -> datetime:
    """Read a time; raises `InvalidDeletion` if it is out of range."""
    try:
        time: datetime = message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidDeletion(f"a time of {message.seconds} seconds is out of range") from None
    return time


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Turn protobuf's complaints (a negative number, text that is not UTF-8) into one line of `InvalidDeletion`."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise InvalidDeletion(f"{what} cannot be sent: {error}") from None
