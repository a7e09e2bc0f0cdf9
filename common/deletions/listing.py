"""What lists of requests and sites show, and what may be asked of them: counts and dates, no receipts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from fedmunkey.common.deletions.states import RequestState
from fedmunkey.common.errors import InvalidDeletion

TARGET_KINDS = ("records", "subject", "site")
"""What a request may name."""

MOST_REFERENCES_FOUND = 100
"""References by which requests may be looked for at a time."""

MOST_LISTED = 1000
"""Requests on one page of a list."""

_LAST_PAGE = 2**31


@dataclass(frozen=True)
class RequestQuery:
    """Which requests a list shows; each empty filter leaves nothing out.

    Attributes
    ----------
    reader : str
        Who reads: a site's name or `officer`, who see what they asked for and a site also what addresses it; empty for
        the coordinator, who sees every request.
    kinds : tuple of str
        Of `TARGET_KINDS`.
    site : str
        A site that they address.
    beginning : str
        How their ids begin.
    references : tuple of bytes
        Requests that name one of these, at most `MOST_REFERENCES_FOUND`.
    page : int
        From 1 on.
    size : int
        Requests on a page, at most `MOST_LISTED`.
    """

    reader: str = ""
    states: tuple[RequestState, ...] = ()
    kinds: tuple[str, ...] = ()
    site: str = ""
    beginning: str = ""
    references: tuple[bytes, ...] = field(default=(), repr=False)
    page: int = 1
    size: int = 50

    def __post_init__(self) -> None:
        """Check what can be asked; raises `InvalidDeletion`."""
        if unknown := set(self.kinds) - set(TARGET_KINDS):
            raise InvalidDeletion(
                f"{min(unknown)!r} is nothing that a request names; ask for {', '.join(TARGET_KINDS)}"
            )
        if not 1 <= self.page <= _LAST_PAGE:
            raise InvalidDeletion(f"there is no page {self.page}; pages are numbered from 1")
        if not 1 <= self.size <= MOST_LISTED:
            raise InvalidDeletion(f"a page of {self.size} requests is not possible; ask for 1 to {MOST_LISTED}")
        if len(self.references) > MOST_REFERENCES_FOUND:
            raise InvalidDeletion(f"requests are found by at most {MOST_REFERENCES_FOUND} references at a time")


@dataclass(frozen=True)
class RequestSummary:
    """A request in a list.

    `references` is how many records it names. Of the `sites` that it addresses, `answered` have said what they did, of
    which `erased` had something to erase and `refused` did not do it; `left` are no longer in the federation.
    """

    request_id: str
    requester: str
    kind: str
    site: str
    references: int
    submitted_at: datetime
    due_at: datetime | None
    state: RequestState
    renew_by: datetime | None = None
    sites: int = 0
    answered: int = 0
    erased: int = 0
    refused: int = 0
    left: int = 0


@dataclass(frozen=True)
class RequestsFound:
    """One page of a list, and how many requests all pages have together."""

    requests: tuple[RequestSummary, ...]
    total: int


@dataclass(frozen=True)
class Moved:
    """A request that has moved, by the number of the ledger's event; none for where a stream of them begins."""

    event: int
    request_id: str = ""


@dataclass(frozen=True)
class SiteSummary:
    """A site as the coordinator knows it.

    Attributes
    ----------
    connected : bool
        Whether it follows its orders at the moment; `seen_at` is when it last did.
    orders, pending : int
        How many orders it has been given, and how many of them it has not answered.
    seconds : float, optional
        Median over its last answers, from the request to the answer; None before the first.
    certificate_ends : datetime, optional
        None where members have no certificates.
    release : int
        The last release of shared weights that it took part in, 0 for none.
    """

    site: str
    registered_at: datetime
    left_at: datetime | None = None
    connected: bool = False
    seen_at: datetime | None = None
    orders: int = 0
    pending: int = 0
    answered_at: datetime | None = None
    seconds: float | None = None
    certificate_ends: datetime | None = None
    release: int = 0


@dataclass(frozen=True)
class SiteQuery:
    """Which sites a list shows.

    Attributes
    ----------
    reader : str
        Who reads, as `RequestQuery.reader`: a site sees itself, others all.
    beginning : str
        How their names begin.
    page : int
        From 1 on.
    size : int
        Sites on a page, at most `MOST_LISTED`; 0 for all.
    brief : bool
        Whether figures are left out: names, connections, and when they joined and left, are read at once.
    """

    reader: str = ""
    beginning: str = ""
    page: int = 1
    size: int = 0
    brief: bool = False

    def __post_init__(self) -> None:
        """Check what can be asked; raises `InvalidDeletion`."""
        if not 1 <= self.page <= _LAST_PAGE:
            raise InvalidDeletion(f"there is no page {self.page}; pages are numbered from 1")
        if not 0 <= self.size <= MOST_LISTED:
            raise InvalidDeletion(f"a page of {self.size} sites is not possible; ask for at most {MOST_LISTED}")


@dataclass(frozen=True)
class SitesFound:
    """Sites in alphabetical order, the last release of all, 0 before the first, and how many sites all pages have."""

    sites: tuple[SiteSummary, ...]
    release: int
    total: int


@dataclass(frozen=True)
class Week:
    """What was asked and what ended in the seven days from `begins` on; `in_time` of those ended by their due date."""

    begins: datetime
    asked: int
    ended: int
    in_time: int


@dataclass(frozen=True)
class Overview:
    """How many of a reader's requests are in each state, and the last weeks, oldest first."""

    states: Mapping[RequestState, int]
    weeks: tuple[Week, ...]

    @property
    def open(self) -> int:
        """Requests of which more is to come."""
        return sum(count for state, count in self.states.items() if not state.final)

    @property
    def late(self) -> int:
        """Open requests whose time has run out."""
        return self.states.get(RequestState.OVERDUE, 0)
