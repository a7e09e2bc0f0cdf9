"""The states of a deletion and their legal moves: the one place that says what may follow what.

A request is `received` once its head is in the ledger, `verified` once all of it is there and its requester may ask,
and `dispatched` once every addressed site has an order. Then its sites decide:

    received -> verified -> dispatched -> completed | partial | refused
                                 |  ^           ^         |
                                 v  |           |         |  a site that had left comes back
                               overdue ---------+         +--> dispatched

Under `exact` it is `erased` before it is `completed`, until the shared weights are renewed without what was erased.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from types import MappingProxyType

from fedmunkey.common.errors import IllegalMove


class SiteState(StrEnum):
    """How far one site is with one request."""

    PENDING = "pending"
    DELIVERED = "delivered"
    ERASED = "erased"
    NOTHING_HELD = "nothing-held"
    REFUSED = "refused"
    LEFT = "left"

    @property
    def answered(self) -> bool:
        """Whether the site has said what it did."""
        return self in (SiteState.ERASED, SiteState.NOTHING_HELD, SiteState.REFUSED)

    @property
    def final(self) -> bool:
        """Whether nothing more is awaited from the site: it has answered, or it has left the federation."""
        return self.answered or self is SiteState.LEFT


class RequestState(StrEnum):
    """How far a request is, over all sites that it addresses."""

    RECEIVED = "received"
    VERIFIED = "verified"
    DISPATCHED = "dispatched"
    ERASED = "erased"
    COMPLETED = "completed"
    PARTIAL = "partial"
    REFUSED = "refused"
    OVERDUE = "overdue"

    @classmethod
    def of(cls, sites: Collection[SiteState]) -> RequestState:
        """Derive a dispatched request's state from its sites': final when nothing more is awaited from any of them.

        A site that has left makes it `partial`: nobody can say what became of the records there.
        """
        if not sites or not all(state.final for state in sites):
            return cls.DISPATCHED
        if all(state is SiteState.REFUSED for state in sites):
            return cls.REFUSED
        return cls.PARTIAL if {SiteState.REFUSED, SiteState.LEFT} & set(sites) else cls.COMPLETED

    @property
    def final(self) -> bool:
        """Whether nothing more will come of the request by itself."""
        return self in (RequestState.COMPLETED, RequestState.PARTIAL, RequestState.REFUSED)

    @property
    def answered(self) -> bool:
        """Whether every site has said what it did, or has left."""
        return self.final or self is RequestState.ERASED


REQUEST_MOVES: Mapping[RequestState, frozenset[RequestState]] = MappingProxyType(
    {
        RequestState.RECEIVED: frozenset({RequestState.VERIFIED, RequestState.OVERDUE}),
        RequestState.VERIFIED: frozenset({RequestState.DISPATCHED, RequestState.OVERDUE}),
        RequestState.DISPATCHED: frozenset(
            {
                RequestState.ERASED,
                RequestState.COMPLETED,
                RequestState.PARTIAL,
                RequestState.REFUSED,
                RequestState.OVERDUE,
            }
        ),
        RequestState.ERASED: frozenset({RequestState.COMPLETED, RequestState.DISPATCHED, RequestState.OVERDUE}),
        # A request that was late may still be made whole, get more time, or come to an end.
        RequestState.OVERDUE: frozenset(
            {
                RequestState.VERIFIED,
                RequestState.DISPATCHED,
                RequestState.ERASED,
                RequestState.COMPLETED,
                RequestState.PARTIAL,
                RequestState.REFUSED,
            }
        ),
        # A site that comes back carries out what it has missed, also of requests that had ended without it.
        RequestState.COMPLETED: frozenset({RequestState.DISPATCHED}),
        RequestState.PARTIAL: frozenset({RequestState.DISPATCHED}),
        RequestState.REFUSED: frozenset({RequestState.DISPATCHED}),
    }
)
"""Where a request may go from each state."""

SITE_MOVES: Mapping[SiteState, frozenset[SiteState]] = MappingProxyType(
    {
        # The note that an order was delivered may be lost with the process that delivered it.
        SiteState.PENDING: frozenset(
            {SiteState.DELIVERED, SiteState.ERASED, SiteState.NOTHING_HELD, SiteState.REFUSED, SiteState.LEFT}
        ),
        SiteState.DELIVERED: frozenset({SiteState.ERASED, SiteState.NOTHING_HELD, SiteState.REFUSED, SiteState.LEFT}),
        SiteState.ERASED: frozenset(),
        SiteState.NOTHING_HELD: frozenset(),
        SiteState.REFUSED: frozenset(),
        SiteState.LEFT: frozenset({SiteState.PENDING}),
    }
)
"""Where one site's part may go from each state."""

OPEN_REQUESTS = tuple(state for state in RequestState if not state.final)
"""States of requests of which more is to come."""

OPEN_ORDERS = tuple(state for state in SiteState if not state.final)
"""States of orders whose answer is awaited."""


def check_move(before: RequestState | SiteState, after: RequestState | SiteState) -> None:
    """Check that one state may follow another; raises `IllegalMove` if it may not."""
    legal = REQUEST_MOVES[before] if isinstance(before, RequestState) else SITE_MOVES[before]
    if after not in legal or type(after) is not type(before):
        raise IllegalMove(f"a deletion that is {before.value!r} cannot become {after.value!r}")
