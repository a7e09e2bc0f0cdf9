"""What a site and a federation should be after any deletions, in plain dictionaries: the model that faults are held to.

It knows nothing of databases, processes or connections, so what it says is what was promised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedmunkey.common.deletions.words import SiteState


@dataclass(frozen=True)
class ModelRecord:
    """A record by number: its subject, and whether it has an entry in the bank (held-out records have none)."""

    number: int
    subject: int
    entry: bool = True


@dataclass(frozen=True)
class Named:
    """What a request names, by number: records, a subject, or everything that a site holds."""

    records: frozenset[int] = frozenset()
    subject: int | None = None
    everything: bool = False


@dataclass(frozen=True)
class Expected:
    """What a site should answer to an order."""

    state: SiteState
    records: int
    entries: int


@dataclass
class SiteModel:
    """What one site should hold, by number: every record that there is, and the label of each that is held.

    Refused records and subjects may not be enrolled again without new consent. `generation` counts the deletions that
    have changed the bank; `order` is the last one applied. `answers` has what was answered to requests, by id; it
    outlives the ledger's numbers, of which `number` is the last one that was followed. `generations_before` is what the
    key store's own count of deletions is ahead by since it was restored.
    """

    records: Mapping[int, ModelRecord]
    labels: dict[int, int] = field(default_factory=dict)
    refused_records: set[int] = field(default_factory=set)
    refused_subjects: set[int] = field(default_factory=set)
    generation: int = 0
    order: int = 0
    answers: dict[str, Expected] = field(default_factory=dict)
    number: int = 0
    generations_before: int = 0

    def apply(self, named: Named, *, empty: bool = False) -> Expected:
        """Apply the next order, and return the answer to it.

        Where the store is made anew and `empty`, nothing comes in later of what the order names, and nothing is erased.
        """
        self.order += 1
        gone = [number for number in self.labels if self._is_named(number, named)]
        entries = 0 if empty else sum(self.records[number].entry for number in gone)
        for number in gone:
            del self.labels[number]
        self.refused_records |= {*gone, *named.records}
        if named.subject is not None:
            self.refused_subjects.add(named.subject)
        self.generation += entries > 0
        erased = 0 if empty else len(gone)
        return Expected(SiteState.ERASED if erased else SiteState.NOTHING_HELD, erased, entries)

    def _is_named(self, number: int, named: Named) -> bool:
        return named.everything or number in named.records or self.records[number].subject == named.subject


@dataclass(frozen=True)
class ModelRequest:
    """A request that was made: what it names, and the sites that it addresses."""

    request_id: str
    named: Named
    sites: tuple[str, ...]


@dataclass
class FederationModel:
    """What a federation should be: its sites by name, and every request that was accepted, by id."""

    sites: dict[str, SiteModel]
    asked: dict[str, ModelRequest] = field(default_factory=dict)

    def ask(self, asked: ModelRequest) -> None:
        """Note a request, whenever its orders may come; the same one again changes nothing."""
        self.asked.setdefault(asked.request_id, asked)

    def apply(self, site: str, request_id: str, *, empty: bool = False) -> Expected:
        """Apply a request at a site, as its next order if it is the first time, and return the answer, which stays.

        The site's store may be made anew and `empty`.
        """
        model = self.sites[site]
        if request_id not in model.answers:
            model.answers[request_id] = model.apply(self.asked[request_id].named, empty=empty)
        return model.answers[request_id]
