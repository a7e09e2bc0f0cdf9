"""Between lists (`common.deletions.listing`) and the messages that carry them, as `common.service.wire` does."""

from __future__ import annotations

from typing import Any

from fedmunkey.common.deletions.listing import (
    Moved,
    Overview,
    RequestQuery,
    RequestsFound,
    RequestSummary,
    SiteQuery,
    SitesFound,
    SiteSummary,
    Week,
)
from fedmunkey.common.service.wire import (
    check_lines,
    request_state_from_wire,
    request_state_to_wire,
    time_from_wire,
    writing,
)
from fedmunkey.protos import deletion_pb2

_DEFAULT_SIZE = 100


def query_to_wire(query: RequestQuery) -> deletion_pb2.FindRequest:
    """Write what is looked for."""
    with writing("a search"):
        return deletion_pb2.FindRequest(
            reader=query.reader,
            states=map(request_state_to_wire, query.states),
            kinds=query.kinds,
            site=query.site,
            beginning=query.beginning,
            references=query.references,
            page=query.page,
            page_size=query.size,
        )


def query_from_wire(message: deletion_pb2.FindRequest) -> RequestQuery:
    """Read what is looked for; raises `InvalidDeletion` if it cannot be."""
    return RequestQuery(
        message.reader,
        tuple(state for number in message.states if (state := request_state_from_wire(number)) is not None),
        tuple(message.kinds),
        message.site,
        message.beginning,
        tuple(message.references),
        message.page or 1,
        message.page_size or _DEFAULT_SIZE,
    )


def found_to_wire(found: RequestsFound) -> deletion_pb2.FindResponse:
    """Write a page of a list."""
    return deletion_pb2.FindResponse(requests=map(_summary_to_wire, found.requests), total=found.total)


def found_from_wire(message: deletion_pb2.FindResponse) -> RequestsFound:
    """Read a page of a list; raises `InvalidDeletion` if any part of it cannot be read."""
    return RequestsFound(tuple(map(_summary_from_wire, message.requests)), message.total)


def moved_from_wire(message: deletion_pb2.FollowResponse) -> Moved:
    """Read which request has moved."""
    check_lines(message.request_id)
    return Moved(message.event, message.request_id)


def site_query_to_wire(query: SiteQuery) -> deletion_pb2.ListSitesRequest:
    """Write which sites are looked for."""
    with writing("a search"):
        return deletion_pb2.ListSitesRequest(
            reader=query.reader, beginning=query.beginning, page=query.page, page_size=query.size, brief=query.brief
        )


def site_query_from_wire(message: deletion_pb2.ListSitesRequest) -> SiteQuery:
    """Read which sites are looked for; raises `InvalidDeletion` if they cannot be."""
    return SiteQuery(message.reader, message.beginning, message.page or 1, message.page_size, message.brief)


def sites_to_wire(found: SitesFound) -> deletion_pb2.ListSitesResponse:
    """Write a list of sites."""
    sites = map(_site_to_wire, found.sites)
    return deletion_pb2.ListSitesResponse(sites=sites, release=found.release, total=found.total)


def sites_from_wire(message: deletion_pb2.ListSitesResponse) -> SitesFound:
    """Read a list of sites; raises `InvalidDeletion` if any part of it cannot be read."""
    sites = tuple(map(_site_from_wire, message.sites))
    # A service that knows no pages has sent all.
    return SitesFound(sites, message.release, message.total or len(sites))


def overview_to_wire(overview: Overview) -> deletion_pb2.GetOverviewResponse:
    """Write counts."""
    message = deletion_pb2.GetOverviewResponse(
        states=[
            deletion_pb2.StateCount(state=request_state_to_wire(state), requests=count)
            for state, count in overview.states.items()
        ]
    )
    for week in overview.weeks:
        written = message.weeks.add(asked=week.asked, ended=week.ended, in_time=week.in_time)
        written.begins.FromDatetime(week.begins)
    return message


def overview_from_wire(message: deletion_pb2.GetOverviewResponse) -> Overview:
    """Read counts; raises `InvalidDeletion` if any part of them cannot be read."""
    states = {request_state_from_wire(count.state): count.requests for count in message.states}
    weeks = (Week(time_from_wire(week.begins), week.asked, week.ended, week.in_time) for week in message.weeks)
    return Overview({state: count for state, count in states.items() if state is not None}, tuple(weeks))


def _summary_to_wire(summary: RequestSummary) -> deletion_pb2.RequestSummary:
    message = deletion_pb2.RequestSummary(
        request_id=summary.request_id,
        requester=summary.requester,
        kind=summary.kind,
        site=summary.site,
        references=summary.references,
        state=request_state_to_wire(summary.state),
        sites=summary.sites,
        answered=summary.answered,
        erased=summary.erased,
        refused=summary.refused,
        left=summary.left,
    )
    message.submitted_at.FromDatetime(summary.submitted_at)
    _set_times(message, summary, "due_at", "renew_by")
    return message


def _summary_from_wire(message: deletion_pb2.RequestSummary) -> RequestSummary:
    check_lines(message.request_id, message.requester, message.kind, message.site)
    state = request_state_from_wire(message.state)
    if state is None:
        raise AssertionError("a request in a list has a state")
    return RequestSummary(
        message.request_id,
        message.requester,
        message.kind,
        message.site,
        message.references,
        time_from_wire(message.submitted_at),
        _time(message, "due_at"),
        state,
        _time(message, "renew_by"),
        message.sites,
        message.answered,
        message.erased,
        message.refused,
        message.left,
    )


def _site_to_wire(site: SiteSummary) -> deletion_pb2.SiteSummary:
    message = deletion_pb2.SiteSummary(
        site=site.site,
        connected=site.connected,
        orders=site.orders,
        pending=site.pending,
        seconds=site.seconds,
        release=site.release,
    )
    message.registered_at.FromDatetime(site.registered_at)
    _set_times(message, site, "left_at", "seen_at", "answered_at", "certificate_ends")
    return message


def _site_from_wire(message: deletion_pb2.SiteSummary) -> SiteSummary:
    check_lines(message.site)
    return SiteSummary(
        message.site,
        time_from_wire(message.registered_at),
        _time(message, "left_at"),
        message.connected,
        _time(message, "seen_at"),
        message.orders,
        message.pending,
        _time(message, "answered_at"),
        message.seconds if message.HasField("seconds") else None,
        _time(message, "certificate_ends"),
        message.release,
    )


def _set_times(message: Any, said: RequestSummary | SiteSummary, *names: str) -> None:
    for name in names:
        if (time := getattr(said, name)) is not None:
            getattr(message, name).FromDatetime(time)


def _time(message: Any, name: str) -> Any:
    return time_from_wire(getattr(message, name)) if message.HasField(name) else None
