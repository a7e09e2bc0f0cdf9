"""What is asked for: requests of every kind, drawn so that each can be told from every other."""

from __future__ import annotations

import random
from dataclasses import dataclass

from fedmunkey.common.deletions.words import OFFICER, DeletionRequest, Records, Subject, WholeSite
from fedmunkey.simulations.faults.federation import Federation
from fedmunkey.simulations.faults.model import ModelRequest, Named

_NOWHERE = 10**6
"""Records and subjects with larger numbers are at no site."""


_WHOLE_SITE_AT = 0.8
"""The share of requests after which one site is to forget all that it holds."""


@dataclass(frozen=True)
class DrawnRequest:
    """A request as it is submitted, and as the model knows it."""

    request: DeletionRequest
    asked: ModelRequest


def draw_requests(federation: Federation, count: int, chance: random.Random) -> list[DrawnRequest]:
    """Draw requests: single records, whole subjects, several records, what nobody holds, and a whole site.

    Records and subjects are drawn without looking at what was drawn before, so some are asked for twice.
    """
    drawn = [_draw(federation, f"request-{number}", chance) for number in range(count)]
    if len(federation.sites) > 1 and count > 1:
        place, last = int(_WHOLE_SITE_AT * count), federation.sites[-1].name
        drawn[place] = _make(federation, f"request-{place}", last, WholeSite(last), Named(everything=True))
    return drawn


def change_target(drawn: DrawnRequest) -> DeletionRequest:
    """Return another request under the same id, which the service must refuse."""
    return DeletionRequest(drawn.request.request_id, drawn.request.requester, Subject(bytes(32)))


def _draw(federation: Federation, request_id: str, chance: random.Random) -> DrawnRequest:
    kind = chance.random()
    site = chance.choice(federation.sites)
    if kind < 0.6:
        return _records(federation, request_id, site.name, [chance.choice(site.numbers)], own=chance.random() < 0.5)
    if kind < 0.8:
        subject = federation.model.sites[site.name].records[chance.choice(site.numbers)].subject
        return _subject(federation, request_id, subject)
    if kind < 0.95:
        numbers = chance.sample(site.numbers, chance.randint(2, 4))
        return _records(federation, request_id, "", numbers, own=False)
    if kind < 0.98:
        return _records(federation, request_id, site.name, [_NOWHERE + chance.randrange(_NOWHERE)], own=True)
    return _subject(federation, request_id, _NOWHERE + chance.randrange(_NOWHERE))


def _records(federation: Federation, request_id: str, site: str, numbers: list[int], *, own: bool) -> DrawnRequest:
    target = Records(frozenset(federation.record_reference(number) for number in numbers), site)
    requester = site if own else OFFICER
    return _make(federation, request_id, requester, target, Named(frozenset(numbers)))


def _subject(federation: Federation, request_id: str, subject: int) -> DrawnRequest:
    target = Subject(federation.subject_reference(subject))
    return _make(federation, request_id, OFFICER, target, Named(subject=subject))


def _make(
    federation: Federation, request_id: str, requester: str, target: Records | Subject | WholeSite, named: Named
) -> DrawnRequest:
    place = "" if isinstance(target, Subject) else target.site
    sites = (place,) if place else tuple(site.name for site in federation.sites)
    return DrawnRequest(DeletionRequest(request_id, requester, target), ModelRequest(request_id, named, sites))
