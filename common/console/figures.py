"""What a list's row says of a request: its age, what is left of its time, and what is still owed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fedmunkey.common.deletions.listing import RequestSummary
from fedmunkey.common.deletions.states import RequestState
from fedmunkey.common.deletions.words import Records, RequestStatus, Subject

_DAY = 86400.0
_SHORT_SHARE = 0.25


@dataclass(frozen=True)
class TimeLeft:
    """What is left of a request's time.

    Attributes
    ----------
    days : float
        Until it is due; below 0 once it is late.
    share : float
        Of the whole time, from 0 to 1.
    """

    days: float
    share: float

    @property
    def late(self) -> bool:
        """Whether its time has run out."""
        return self.days < 0

    @property
    def short(self) -> bool:
        """Whether less than a quarter is left."""
        return self.share < _SHORT_SHARE

    @classmethod
    def of(cls, submitted: datetime, due: datetime | None, now: datetime) -> TimeLeft | None:
        """Return what is left of the time from submission to a due date; None without one."""
        if due is None:
            return None
        left, whole = (due - now).total_seconds(), max(1.0, (due - submitted).total_seconds())
        return cls(left / _DAY, min(1.0, max(0.0, left / whole)))


def badge(summary: RequestSummary) -> str:
    """Return the key of what has become of a request, as a list says it: an end without a deletion is no success."""
    if summary.state is RequestState.COMPLETED and not summary.erased:
        return "nothing-held"
    return summary.state.value


def weights(summary: RequestSummary) -> str:
    """Return the key of how the shared weights stand to a request: `none`, `waiting`, `owed` or `renewed`."""
    if summary.renew_by is None:
        return "none" if summary.state.final else "waiting"
    if summary.state.final:
        return "renewed" if summary.state is RequestState.COMPLETED else "owed"
    return "owed" if summary.answered == summary.sites else "waiting"


def summary_of(status: RequestStatus) -> RequestSummary:
    """Return a status as a list shows it."""
    target = status.request.target
    kind = "records" if isinstance(target, Records) else "subject" if isinstance(target, Subject) else "site"
    states = [part.state.value for part in status.sites]
    return RequestSummary(
        status.request.request_id,
        status.request.requester,
        kind,
        "" if isinstance(target, Subject) else target.site,
        len(target.references) if isinstance(target, Records) else int(isinstance(target, Subject)),
        status.submitted_at,
        status.due_at,
        status.state,
        status.renew_by,
        len(states),
        sum(part.state.answered for part in status.sites),
        states.count("erased"),
        states.count("refused"),
        states.count("left"),
    )
