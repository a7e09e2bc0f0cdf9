"""The screens that every console has: requests in a list and one by one, sites, the log, and how it is going."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Response

from fedmunkey.common.console.face import Face, Visit
from fedmunkey.common.console.figures import summary_of
from fedmunkey.common.console.log_screen import show_log
from fedmunkey.common.console.pages import request_path
from fedmunkey.common.console.paging import PAGE_SIZE, Paging, page_number
from fedmunkey.common.deletions import status_words
from fedmunkey.common.deletions.listing import TARGET_KINDS, RequestQuery, SiteQuery
from fedmunkey.common.deletions.states import RequestState
from fedmunkey.common.deletions.words import RequestStatus
from fedmunkey.common.proofs.trusted_keys import TrustedKeys

_CHOICES = {"states": list(RequestState)[2:], "kinds": TARGET_KINDS}

Details = Callable[[Visit, RequestStatus], dict[str, Any]]
"""Returns what a face's own template shows of a request beside what every console does."""


def add_screens(
    face: Face,
    keys: Callable[[], TrustedKeys | None],
    details: Details,
    *,
    inbox: str = "inbox.html",
    request: str = "request.html",
    sites: str = "sites.html",
) -> None:
    """Add them to a console.

    `keys` returns those by which the log's heads are checked, None without any. `inbox`, `request` and `sites` are
    templates of this console that extend the shared ones of these names.
    """
    for path in ("/", "/requests"):
        face.get(path, lambda visit: _show_inbox(visit, inbox))
    face.get("/requests/{request_id:path}", lambda visit: _show_request(visit, request, details))
    face.get("/sites", lambda visit: _show_sites(visit, sites))
    face.get("/overview", _show_overview)
    face.get("/log", lambda visit: show_log(visit, keys()))


def _show_inbox(visit: Visit, template: str) -> Response:
    """Show a page of the requests that the address asks for."""
    asked = _asked(visit)
    found = visit.service.find(asked)
    filters = {
        "state": [state.value for state in asked.states],
        "kind": list(asked.kinds),
        "site": asked.site,
        "id": asked.beginning,
    }
    paging = Paging(asked.page, asked.size, found.total, "/requests", filters)
    if paging.page != asked.page:
        found = visit.service.find(replace(asked, page=paging.page))
    return visit.draw(template, query=asked, found=found, paging=paging, **_CHOICES)


def _asked(visit: Visit) -> RequestQuery:
    fields = parse_qsl(visit.request.url.query)
    known = set(RequestState)
    states = tuple(RequestState(value) for name, value in fields if name == "state" and value in known)
    kinds = tuple(value for name, value in fields if name == "kind" and value in TARGET_KINDS)
    given = dict(fields)
    return RequestQuery(
        visit.reader,
        states,
        kinds,
        given.get("site", "").strip(),
        given.get("id", "").strip(),
        page=page_number(given.get("page", "")),
        size=PAGE_SIZE,
    )


def _show_request(visit: Visit, template: str, details: Details) -> Response:
    status = visit.service.get(visit.request.path_params["request_id"])
    name = status.request.request_id
    history = visit.service.history(name)
    given, path = visit.request.query_params, request_path(name)
    page, moves = page_number(given.get("page", "")), page_number(given.get("moves", ""))
    sites = Paging(page, PAGE_SIZE, len(status.sites), path, {"moves": moves if moves > 1 else ""})
    # Whoever has not answered, or has refused, comes first.
    parts = sorted(status.sites, key=lambda part: (part.state.final and not part.reason, part.site))
    happened = Paging(moves, PAGE_SIZE, len(history), path, {"page": page if page > 1 else ""}, "moves")
    return visit.draw(
        template,
        status=status,
        summary=summary_of(status),
        parts=sites.cut(parts),
        paging=sites,
        history=happened.cut(history),
        happened=happened,
        awaited=[part for part in status.sites if not part.state.final],
        guarantee=status_words.weakest_guarantee(status),
        words=status_words.outcome_words(status),
        owed=status_words.renewal_words(status),
        loss=status_words.combined_loss(status),
        epsilon=status_words.epsilon_words,
        request_path=request_path,
        **details(visit, status),
    )


def _show_sites(visit: Visit, template: str) -> Response:
    given = visit.request.query_params
    beginning = given.get("name", "").strip()
    asked = SiteQuery(visit.reader, beginning, page_number(given.get("page", "")), PAGE_SIZE)
    found = visit.service.sites(asked)
    paging = Paging(asked.page, PAGE_SIZE, found.total, "/sites", {"name": beginning})
    if paging.page != asked.page:
        found = visit.service.sites(replace(asked, page=paging.page))
    return visit.draw(template, found=found, beginning=beginning, paging=paging)


def _show_overview(visit: Visit) -> Response:
    overview = visit.service.overview(visit.reader)
    ended = sum(week.ended for week in overview.weeks)
    in_time = sum(week.in_time for week in overview.weeks)
    tallest = max((max(week.asked, week.ended) for week in overview.weeks), default=0)
    return visit.draw(
        "overview.html", overview=overview, ended=ended, in_time=in_time, tallest=max(1, tallest), State=RequestState
    )
