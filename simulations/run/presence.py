"""Hospitals that come, go and sleep for real: one that is not there has no folder where anybody would look for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedmunkey.client.importing.encoding import enrol
from fedmunkey.client.learning.neighbour_index import list_arrivals
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.simulations.federation.hospitals import Hospital
from fedmunkey.simulations.run.changes import Timeline

_AWAY = ".away"
"""The folder, beside those of hospitals, where those that are not there lie."""


@dataclass
class Presence:
    """Brings about what a timeline says of each round.

    A hospital that sleeps or has not joined answers nobody; one that leaves is taken out of the ledger and does not
    come back. `taken_up` may be asked again for a round: what is so already stays.
    """

    timeline: Timeline
    hospitals: Sequence[Hospital]
    ledger: Ledger
    secret: FederationSecret
    guarantee: Guarantee
    round: int = 1
    _enrolled: int = field(default=1, repr=False)

    def take_up(self, number: int) -> list[str]:
        """Bring about how it is in a round; return the names of the hospitals that are there and were not before."""
        self.round = number
        if not self.timeline.changes:
            return []
        come = []
        members = set(self.ledger.site_names())
        for place, hospital in enumerate(self.hospitals):
            if self.timeline.is_member(place, number) and hospital.name not in members:
                self.ledger.register(hospital.name)
            if self.timeline.has_left(place, number) and hospital.name in members:
                self.ledger.remove(hospital.name, "the hospital leaves, as the plan of the simulation says")
            self._bring_records(place, hospital)
            if self._move(place, hospital):
                come.append(hospital.name)
        self._enrolled = number
        return come

    def there(self) -> list[Hospital]:
        """Return the hospitals that are there."""
        return [one for place, one in enumerate(self.hospitals) if self.timeline.is_there(place, self.round)]

    def away(self) -> frozenset[str]:
        """Return the names of those that are not."""
        return frozenset(hospital.name for hospital in self.hospitals) - {hospital.name for hospital in self.there()}

    def _bring_records(self, place: int, hospital: Hospital) -> None:
        since = self.timeline.since[place]
        if self.timeline.has_left(place, self.round):
            return
        rows = np.flatnonzero((since > self._enrolled) & (since <= self.round))
        if not len(rows):
            return
        records = hospital.given.select(rows)
        folder = hospital.folder if hospital.folder.path.exists() else SiteFolder(_away(hospital.folder))
        # Those that it has already, or has deleted since, are left out.
        with folder.open() as store:
            enrol(store, [(records.records, records.encoding)], self.secret)
            if self.guarantee is not Guarantee.EXACT:
                list_arrivals(store)

    def _move(self, place: int, hospital: Hospital) -> bool:
        """Put a hospital's folder where it belongs; return whether it has come back with that."""
        here, away = hospital.folder.path, _away(hospital.folder)
        if self.timeline.is_there(place, self.round):
            if here.exists():
                return False
            away.rename(here)
            return True
        if here.exists():
            away.parent.mkdir(exist_ok=True)
            here.rename(away)
        return False


def _away(folder: SiteFolder) -> Path:
    return folder.path.parent / _AWAY / folder.path.name
