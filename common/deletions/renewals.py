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
class StillHeld:
    """Weights that were released, of so many records, of which so many entries were erased since."""

    entries: int
    records: int

    def changed(self, records: int) -> int:
        """Return how many records have changed in weights of so many, as far as totals tell."""
        return self.entries + abs(records - (self.records - self.entries))


@dataclass(frozen=True)
class RenewalNeed:
    """What is owed at some time.

    Attributes
    ----------
    entries : int
        Erased bank entries that weights in use were still solved with.
    renew_by : datetime, optional
        By when the first of them must be out of the weights; None where nothing is owed.
    records : int, optional
        Of how many records the last release was that was given out; None before the first.
    others : tuple of StillHeld
        Releases beside it that somebody may have: those that it has undone, because it is an earlier one again, and
        those after it that not all sites have taken over.
    solved_at : datetime, optional
        Since when there is a release that not all sites have taken over; None if there is none.
    """

    entries: int
    renew_by: datetime | None
    records: int | None
    others: tuple[StillHeld, ...] = ()
    solved_at: datetime | None = None

    def changed(self, records: int) -> int:
        """Return how many records have changed since the last release in weights of so many, as far as totals tell.

        Of several releases that somebody may have kept, it is the one with the fewest that counts.
        """
        if self.records is None:
            return records
        return min(held.changed(records) for held in (StillHeld(self.entries, self.records), *self.others))
