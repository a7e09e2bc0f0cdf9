"""A site's own records in its console: counts and names, as `munkey-client status` shows them."""

from __future__ import annotations

from fastapi import Response

from fedmunkey.client.deletions.holdings import Holdings
from fedmunkey.client.membership.site_card import MemberCards
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.console.face import Face, Visit


def add_own_figures(face: Face, folder: SiteFolder) -> None:
    """Add them to a site's console."""
    face.get("/own", lambda visit: _show(visit, folder))


def _show(visit: Visit, folder: SiteFolder) -> Response:
    with folder.open() as store:
        holdings = Holdings.of(store, MemberCards.of(folder).words())
    return visit.draw("own.html", facts=holdings.facts, orders=list(reversed(holdings.orders))[:100])
