"""A site's own records in its console: counts and names, as `munkey-client status` shows them."""

from __future__ import annotations

from fastapi import Response

from fedmunkey.client.deletions.holdings import Holdings
from fedmunkey.client.membership.site_card import MemberCards
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.console.face import Face, Visit
from fedmunkey.common.console.paging import PAGE_SIZE, Paging, page_number


def add_own_figures(face: Face, folder: SiteFolder) -> None:
    """Add them to a site's console."""
    face.get("/own", lambda visit: _show(visit, folder))


def _show(visit: Visit, folder: SiteFolder) -> Response:
    with folder.open() as store:
        holdings = Holdings.of(store, MemberCards.of(folder).words())
    given = visit.request.query_params.get("page", "")
    paging = Paging(page_number(given), PAGE_SIZE, len(holdings.orders), "/own", {})
    orders = paging.cut(list(reversed(holdings.orders)))
    return visit.draw("own.html", facts=holdings.facts, orders=orders, paging=paging)
