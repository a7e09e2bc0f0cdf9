"""Who may ask for what to be forgotten, and which sites a request addresses (see `docs/architecture.md`)."""

from __future__ import annotations

from collections.abc import Collection

from fedmunkey.common.deletions.words import OFFICER, DeletionRequest, Records, Subject, WholeSite
from fedmunkey.common.errors import InvalidDeletion, NotAllowed


def addresses_everyone(request: DeletionRequest) -> bool:
    """Return whether a request is for every site, whichever these are: the officer's, without a site of its own."""
    match request.target:
        case Records(site="") | Subject():
            return request.requester == OFFICER
        case _:
            return False


def addressed_sites(request: DeletionRequest, registered: Collection[str]) -> tuple[str, ...]:
    """Return the sites that receive an order for a request, in alphabetical order.

    The officer may ask for everything: records without a site and subjects address every registered
    site, anything else the site that it names. A site may ask for its own records, for itself as a whole, and for a
    subject; the latter addresses only that site, for what other hospitals hold is not its to delete. Nobody else may
    ask, the coordinator included.

    Raises `NotAllowed` if the requester may not ask for the target, `InvalidDeletion` if the request addresses a site
    that is not registered, or no site is registered.
    """
    if request.requester != OFFICER:
        return _own_site(request, registered)
    match request.target:
        case Records(site=site) | WholeSite(site=site) if site:
            sites: tuple[str, ...] = (site,)
        case _:
            sites = tuple(sorted(registered))
    if not sites:
        # Without this, a request that nobody was asked to carry out would be complete.
        raise InvalidDeletion("no site is registered, so nobody can carry out the request; register sites first")
    if unknown := set(sites) - set(registered):
        raise InvalidDeletion(f"site {min(unknown)!r} is not registered; munkey-server sites lists those that are")
    return sites


def _own_site(request: DeletionRequest, registered: Collection[str]) -> tuple[str, ...]:
    requester, target = request.requester, request.target
    if requester not in registered:
        raise NotAllowed(f"{requester!r} may not ask for deletions; only registered sites and the officer may")
    if not isinstance(target, Subject) and target.site != requester:
        what = f"what {target.site!r} holds" if target.site else "records at every site"
        raise NotAllowed(
            f"site {requester!r} may not ask for {what}: name {requester!r} as the records' site, "
            "or let the officer ask"
        )
    return (requester,)
