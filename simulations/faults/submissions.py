"""Requesters that try until they are heard: out of order, twice, and with ids that are taken."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.deletions.words import RequestStatus
from fedmunkey.common.errors import InvalidDeletion, KeyStoreError, ServiceUnavailable
from fedmunkey.simulations.faults.federation import Site
from fedmunkey.simulations.faults.requests import DrawnRequest, change_target
from fedmunkey.simulations.faults.residue import Contents
from fedmunkey.simulations.faults.running_federation import PATIENCE, RunningFederation

_DUPLICATES = 0.1
_CONFLICTS = 0.03
_PAUSE = 0.1


@dataclass(frozen=True)
class _Manner:
    """How one request is made: again afterwards, and with another target under the same id."""

    twice: bool
    conflicting: bool


class Requesters:
    """Submits requests in the threads of a pool, and notes what was seen of their records before.

    Chance draws their order, and who asks twice.
    """

    def __init__(self, running: RunningFederation, pool: ThreadPoolExecutor, chance: random.Random) -> None:
        self._running, self._pool, self._chance = running, pool, chance
        self._entries = {site.name: entry_numbers(site) for site in running.federation.sites}
        self.contents = {site.name: Contents() for site in running.federation.sites}
        self.made: Counter[str] = Counter()
        self._stopped = threading.Event()
        for site in running.federation.sites:
            self.contents[site.name].note(site.folder.key_store, self._entries[site.name])

    def stop(self) -> None:
        """Let every request under way be given up."""
        self._stopped.set()

    def submit(self, drawn: Sequence[DrawnRequest]) -> list[Future[None]]:
        """Begin to submit some requests, in another order than they were drawn in."""
        shuffled = self._chance.sample(drawn, len(drawn))
        self.made["submitted out of order"] += sum(a is not b for a, b in zip(drawn, shuffled, strict=True))
        begun = []
        for request in shuffled:
            manner = _Manner(self._chance.random() < _DUPLICATES, self._chance.random() < _CONFLICTS)
            self.made["submitted twice"] += manner.twice
            self.made["submitted with an id that was taken"] += manner.conflicting
            self._note(request)
            self._running.federation.model.ask(request.asked)
            begun.append(self._pool.submit(self._submit, request, manner))
        return begun

    def _note(self, drawn: DrawnRequest) -> None:
        """Keep what the key stores hold at this moment of the records that a request names."""
        for site in self._running.federation.sites:
            named, model = drawn.asked.named, self._running.federation.model.sites[site.name]
            entries = {
                number: entry
                for number, entry in self._entries[site.name].items()
                if number in named.records or model.records[number].subject == named.subject or named.everything
            }
            try:
                self.contents[site.name].note(site.folder.key_store, entries)
            except sqlite3.DatabaseError:
                # It is locked or damaged on purpose; what was noted before will do.
                continue

    def _submit(self, drawn: DrawnRequest, manner: _Manner) -> None:
        first = self._until_heard(drawn)
        if manner.twice and _orders(self._until_heard(drawn)) != _orders(first):
            self._running.surprises.append(f"{drawn.request.request_id} was given other orders the second time")
        if manner.conflicting:
            self._conflict(drawn)

    def _until_heard(self, drawn: DrawnRequest) -> RequestStatus:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self._running.channel.submit(drawn.request)
            except ServiceUnavailable:
                if time.monotonic() > deadline or self._stopped.wait(_PAUSE):
                    raise

    def _conflict(self, drawn: DrawnRequest) -> None:
        try:
            self._running.channel.submit(change_target(drawn))
        except (InvalidDeletion, ServiceUnavailable):
            return
        self._running.surprises.append(f"{drawn.request.request_id} was accepted for two different targets")


def entry_numbers(site: Site) -> dict[int, int]:
    """Return the entry number of each record of a site."""
    found = {}
    with site.folder.open() as store:
        for split in Split:
            entries, _ = store.records.read_entries(split)
            for entry, (record, _) in zip(entries.tolist(), store.records.read_ids(entries), strict=True):
                found[int(record.rpartition("-")[2])] = entry
    if len(found) != len(site.numbers):
        raise KeyStoreError(f"{site.name} holds {len(found)} records instead of {len(site.numbers)}; begin again")
    return found


def _orders(status: RequestStatus) -> list[tuple[str, int]]:
    return [(progress.site, progress.number) for progress in status.sites]
