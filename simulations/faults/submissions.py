"""Requesters that try until they are heard: out of order, twice, and with ids that are taken."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.deletions.words import OFFICER, DeletionRequest, RequestStatus
from fedmunkey.common.errors import InvalidDeletion, ServiceUnavailable
from fedmunkey.simulations.faults.federation import Site
from fedmunkey.simulations.faults.requests import DrawnRequest, change_target
from fedmunkey.simulations.faults.residue import Contents
from fedmunkey.simulations.faults.running_federation import PATIENCE, RunningFederation

_DUPLICATES = 0.1
_CONFLICTS = 0.03
_PAUSE = 0.1
_WRONG_SECONDS = 3600.0
"""A request that is stamped that far from now was so by a clock that had jumped."""


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
        self.stamped_wrongly = 0
        self._asked: dict[str, DrawnRequest] = {}
        self._stopped = threading.Event()
        for site in running.federation.sites:
            self.contents[site.name].note(site.folder.key_store, self._entries[site.name])

    def stop(self) -> None:
        """Let every request under way be given up."""
        self._stopped.set()

    def submit(self, drawn: Sequence[DrawnRequest]) -> list[Future[None]]:
        """Sign some requests and begin to submit them, in another order than they were drawn in."""
        signed = [replace(each, request=self._running.federation.sign(each.request)) for each in drawn]
        shuffled = self._chance.sample(signed, len(signed))
        self.made["submitted out of order"] += sum(a is not b for a, b in zip(signed, shuffled, strict=True))
        begun = []
        for request in shuffled:
            manner = _Manner(self._chance.random() < _DUPLICATES, self._chance.random() < _CONFLICTS)
            self.made["submitted twice"] += manner.twice
            self.made["submitted with an id that was taken"] += manner.conflicting
            self._note(request)
            self._asked[request.asked.request_id] = request
            self._running.federation.model.ask(request.asked)
            begun.append(self._pool.submit(self._submit, request, manner))
        return begun

    def ask_again(self, known: Collection[str]) -> list[Future[None]]:
        """Begin to submit again, in any order, what is not among the requests that are known by their ids.

        What may not be heard for the first time any more is signed again as it was, by the receipts that sites have
        given back; if no site has carried it out, it is signed anew.
        """
        lost = [self._asked[name] for name in self._running.federation.model.asked if name not in known]
        again = [replace(each, request=self._sign_again(each.request)) for each in lost]
        self._asked |= {each.asked.request_id: each for each in again}
        plainly = _Manner(twice=False, conflicting=False)
        return [self._pool.submit(self._submit, each, plainly) for each in self._chance.sample(again, len(again))]

    def _sign_again(self, request: DeletionRequest) -> DeletionRequest:
        """Return a request that the ledger has lost, as its requester asks for it again under the same id."""
        running = self._running
        self.made["submitted again after the ledger had lost them"] += 1
        if running.federation.signers.is_good(request, running.federation.now()):
            return request
        site = "" if request.requester == OFFICER else request.requester
        receipts = running.persist(lambda: running.channel.recalled(request.request_id, site))
        as_it_was = running.federation.signers.sign_again(request, receipts, running.federation.now())
        self.made["signed again as they were" if as_it_was else "signed anew, for nobody has carried them out"] += 1
        return as_it_was or running.federation.sign(request)

    def look_again(self, site: Site) -> None:
        """Note the entries and contents of a key store that was made anew."""
        self._entries[site.name] = entry_numbers(site)
        self.contents[site.name].note(site.folder.key_store, self._entries[site.name])

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
        try:
            first = self._until_heard(drawn.request)
            if manner.twice and _orders(self._until_heard(drawn.request)) != _orders(first):
                self._running.findings.broken.append(
                    f"{drawn.request.request_id} was given other orders the second time"
                )
        except InvalidDeletion as error:
            self._running.findings.refused_wrongly += 1
            self._wonder(drawn, f"was refused: {error}")
            return
        off = abs((first.submitted_at - self._running.federation.now()).total_seconds())
        self.stamped_wrongly += off > _WRONG_SECONDS
        if manner.conflicting:
            self._conflict(drawn)

    def _until_heard(self, request: DeletionRequest) -> RequestStatus:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self._running.channel.submit(request)
            except ServiceUnavailable:
                if time.monotonic() > deadline or self._stopped.wait(_PAUSE):
                    raise

    def _conflict(self, drawn: DrawnRequest) -> None:
        try:
            self._running.channel.submit(self._running.federation.sign(change_target(drawn)))
        except (InvalidDeletion, ServiceUnavailable):
            return
        self._wonder(drawn, "was accepted for two different targets")

    def _wonder(self, drawn: DrawnRequest, what: str) -> None:
        self._running.findings.broken.append(f"{drawn.request.request_id} {what}")


def entry_numbers(site: Site) -> dict[int, int]:
    """Return the entry number of each record that a site holds."""
    found = {}
    with site.folder.open() as store:
        for split in Split:
            entries, _ = store.records.read_entries(split)
            for entry, (record, _) in zip(entries.tolist(), store.records.read_ids(entries), strict=True):
                found[int(record.rpartition("-")[2])] = entry
    return found


def _orders(status: RequestStatus) -> list[tuple[str, int]]:
    return [(progress.site, progress.number) for progress in status.sites]
