"""Renewing shared weights after deletions: what a round says that it released, and what is still owed to whom."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class SiteContribution:
    """A site's part in a release: every order up to `last_order` was carried out before.

    `statement` is the envelope in which the site signed that (`common.proofs.contributions`); empty if it has no key.
    """

    site: str
    last_order: int
    statement: bytes


@dataclass(frozen=True)
class ReleasedWeights:
    """What a coordinator's round has solved for.

    The weights' digest, of how many records and of which sites they are, and how many of the records have changed since
    the release before, as far as the coordinator can tell.
    """

    digest: str
    records: int
    changed: int
    contributions: tuple[SiteContribution, ...]


@dataclass(frozen=True)
class RenewalNeed:
    """What is owed at some time.

    Attributes
    ----------
    entries : int
        Erased bank entries that the last released weights were still solved with.
    renew_by : datetime, optional
        By when the first of them must be out of the weights; None where nothing is owed.
    records : int, optional
        Of how many records the last release was; None before the first.
    """

    entries: int
    renew_by: datetime | None
    records: int | None
