"""What a site and a federation should be after any deletions, in plain dictionaries: the model that faults are held to.

It knows nothing of databases, processes or connections, so what it says is what was promised.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fedmunkey.client.key_store import Enrolled
from fedmunkey.common.deletion import SiteState


@dataclass(frozen=True)
class ModelRecord:
    """A record by number: its subject, and whether it has an entry in the bank (held-out records have none)."""

    number: int
    subject: int
    entry: bool = True


@dataclass(frozen=True)
class Named:
    """What a request names, by number; everything that a site holds if `everything`.

    Attributes
    ----------
    records : frozenset of int
        Records.
    subject : int, optional
        A subject.
    everything : bool
        Whether it is a whole site.
    """

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
    """What one site should hold.

    Attributes
    ----------
    records : mapping
        Every record that there is, by number, whether it is held or not.
    labels : dict
        Label of each record that is held.
    tokens : dict
        First number of a trained token and its steps, by record.
    refused_records, refused_subjects : set of int
        What may not be enrolled again without new consent.
    generation : int
        Deletions that have changed the bank.
    order : int
        The last order applied.
    """

    records: Mapping[int, ModelRecord]
    labels: dict[int, int] = field(default_factory=dict)
    tokens: dict[int, tuple[float, int]] = field(default_factory=dict)
    refused_records: set[int] = field(default_factory=set)
    refused_subjects: set[int] = field(default_factory=set)
    generation: int = 0
    order: int = 0

    def enrol(self, numbers: Iterable[int], label: int, consented: frozenset[int] | set[int] = frozenset()) -> Enrolled:
        """Enrol records with a label; those that are held or refused are left out, but for the consented ones."""
        added = known = refused = 0
        for number in numbers:
            if number in self.labels:
                known += 1
            elif self.refuses(number) and number not in consented:
                refused += 1
            else:
                self.refused_records.discard(number)
                self.labels[number] = label
                added += 1
        return Enrolled(added, known, refused)

    def refuses(self, number: int) -> bool:
        """Return whether a record may not be enrolled without new consent."""
        return number in self.refused_records or self.records[number].subject in self.refused_subjects

    def write_tokens(self, value: float) -> None:
        """Train the token of every entry by one step, to a value."""
        for number in self.entries():
            self.tokens[number] = (value, self.tokens.get(number, (0.0, 0))[1] + 1)

    def apply(self, named: Named) -> Expected:
        """Apply the next order, and return the answer to it."""
        self.order += 1
        gone = [number for number in self.labels if self._is_named(number, named)]
        entries = sum(self.records[number].entry for number in gone)
        for number in gone:
            del self.labels[number]
            self.tokens.pop(number, None)
        self.refused_records |= {*gone, *named.records}
        if named.subject is not None:
            self.refused_subjects.add(named.subject)
        self.generation += entries > 0
        return Expected(SiteState.ERASED if gone else SiteState.NOTHING_HELD, len(gone), entries)

    def entries(self) -> list[int]:
        """Return the numbers of the records that have an entry in the bank."""
        return [number for number in self.labels if self.records[number].entry]

    def _is_named(self, number: int, named: Named) -> bool:
        return named.everything or number in named.records or self.records[number].subject == named.subject


@dataclass(frozen=True)
class Asked:
    """A request that was made: what it names, and the sites that it addresses."""

    request_id: str
    named: Named
    sites: tuple[str, ...]


@dataclass
class FederationModel:
    """What a federation should be: every site, every request that was accepted, and the orders that followed.

    Attributes
    ----------
    sites : dict
        By name.
    asked : dict
        By request id.
    orders : dict
        Request ids of each site's orders, by site; the first order of a site is number 1.
    """

    sites: dict[str, SiteModel]
    asked: dict[str, Asked] = field(default_factory=dict)
    orders: dict[str, list[str]] = field(default_factory=dict)

    def ask(self, asked: Asked) -> None:
        """Note a request, whenever its orders may come; the same one again changes nothing."""
        self.asked.setdefault(asked.request_id, asked)

    def enter(self, asked: Asked) -> dict[str, int]:
        """Note a request and give each site that it addresses an order; return their numbers by site."""
        if asked.request_id not in self.asked:
            self.ask(asked)
            for site in asked.sites:
                self.orders.setdefault(site, []).append(asked.request_id)
        return {site: self.orders[site].index(asked.request_id) + 1 for site in asked.sites}

    def apply(self, site: str, request_id: str) -> Expected:
        """Apply a request at a site as its next order, and return the answer to it."""
        return self.sites[site].apply(self.asked[request_id].named)
