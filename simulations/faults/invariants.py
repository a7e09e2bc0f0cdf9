"""What must be true when the faults are over: ledger and key stores are compared with the plain model."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.learning.bank import read_bank
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.deletions.references import REFERENCE_BYTES
from fedmunkey.common.deletions.words import Acknowledgement, RequestState, RequestStatus, SiteState
from fedmunkey.common.model.neighbours import NONE
from fedmunkey.simulations.faults.federation import SETTINGS, Federation, Site, record_id
from fedmunkey.simulations.faults.model import Expected, SiteModel
from fedmunkey.simulations.faults.plain_store import state_and_plain
from fedmunkey.simulations.faults.residue import Contents, not_overwritten

_NOBODY = bytes(REFERENCE_BYTES)
"""A reference that is no record's and no subject's."""


@dataclass
class BrokenPromises:
    """What was found broken; nothing, if every promise was kept.

    Lost are requests that were accepted, and are not in the ledger or not in a final state; skipped are orders of which
    a site knows nothing in the end, refused wrongly are requests and orders that were good. Applied twice are orders
    that changed a key store more than once; resurrected are records that are held, in the bank or among neighbours
    though they were deleted, and of records and subjects that may not come back the missing tombstones are counted.
    Digests that differ are those of sites whose state is not that of a store which never had what is gone. `broken` has
    a line for every other promise, without ids; `states` counts all requests.
    """

    lost: int = 0
    orders_skipped: int = 0
    refused_wrongly: int = 0
    applied_twice: int = 0
    resurrected: int = 0
    tombstones_missing: int = 0
    digests_that_differ: int = 0
    residue_bytes: int = 0
    states: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Return the counts of broken promises, by what they count."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.type == "int"}

    @property
    def clean(self) -> bool:
        """Whether every promise was kept."""
        return not (any(self.counts().values()) or self.broken)


def check(
    federation: Federation,
    statuses: Sequence[RequestStatus],
    contents: Mapping[str, Contents],
    findings: BrokenPromises | None = None,
) -> BrokenPromises:
    """Compare a federation whose processes have ended with its model, which is brought up to date on the way.

    The statuses are everything that the service knows, the contents what each site's key store held before deletions.
    What is found is added to what was found before. The stores' tokens are not what they were afterwards.
    """
    findings = findings or BrokenPromises()
    _check_requests(federation, statuses, findings)
    for site in federation.sites:
        model = federation.model.sites[site.name]
        answers = _check_orders(federation, site, statuses, findings)
        with site.folder.open() as store:
            check_held(federation, site, store, findings)
            _check_answers(federation, site, store, answers, findings)
        gone = set(site.numbers) - set(model.labels)
        findings.residue_bytes += contents[site.name].residue(site.folder.path, gone)
        findings.residue_bytes += not_overwritten(site.folder.key_store)
        _check_rows(site, findings)
        state, plain = state_and_plain(federation, site)
        findings.digests_that_differ += state != plain
    return findings


def check_held(federation: Federation, site: Site, store: KeyStore, findings: BrokenPromises) -> None:
    """Compare what a site holds and refuses with its model, which has applied the same orders."""
    model = federation.model.sites[site.name]
    bank = read_bank(store, SETTINGS.neighbours)
    neighbours = bank.entries[bank.lists.indices[bank.lists.indices != NONE].unique().numpy()]
    held = {record for entries in _entries(store) for record, _ in store.records.read_ids(entries)}
    seen = held | {record for record, _ in store.records.read_ids(np.union1d(bank.entries, neighbours))}
    expected = {record_id(number) for number in model.labels}
    findings.resurrected += len(seen - expected)
    findings.tombstones_missing += _count_missing(federation, model, store)
    generation = model.generation + model.generations_before
    findings.applied_twice += max(store.generation - generation, 0)
    for count, what in (
        (len(expected - held), "records were deleted that nobody asked for"),
        (max(generation - store.generation, 0), "deletions have left no trace in the generation"),
    ):
        if count:
            findings.broken.append(f"{site.name}: {count} {what}")


def _check_requests(federation: Federation, statuses: Sequence[RequestStatus], findings: BrokenPromises) -> None:
    """Check that each request is there once, at the right sites, and done."""
    asked, known = federation.model.asked, Counter(status.request.request_id for status in statuses)
    findings.states = Counter(status.state.value for status in statuses)
    findings.lost = len(asked.keys() - known.keys()) + sum(not status.state.final for status in statuses)
    findings.broken += [f"{request} is in the ledger {times} times" for request, times in known.items() if times > 1]
    findings.broken += [f"{request} was never asked for" for request in known.keys() - asked.keys()]
    for status in statuses:
        wanted = asked.get(status.request.request_id)
        addressed = tuple(progress.site for progress in status.sites)
        if wanted is not None and sorted(addressed) != sorted(wanted.sites):
            findings.broken.append(f"{wanted.request_id} addresses {addressed} instead of {wanted.sites}")
        if status.state.final and status.state is not RequestState.COMPLETED:
            findings.broken.append(f"{status.request.request_id} ended as {status.state}")


def _check_orders(
    federation: Federation, site: Site, statuses: Sequence[RequestStatus], findings: BrokenPromises
) -> list[Acknowledgement]:
    """Apply the ledger's orders of a site to its model, and compare the answers; return those."""
    orders = sorted(
        (
            (progress.number, status.request.request_id, progress.acknowledgement)
            for status in statuses
            for progress in status.sites
            if progress.site == site.name and status.request.request_id in federation.model.asked
        ),
        key=lambda order: order[0],
    )
    numbers = [number for number, _, _ in orders]
    if numbers != list(range(1, len(numbers) + 1)):
        findings.broken.append(f"the orders of {site.name} are not numbered from 1 without gaps")
    answers = []
    for number, request_id, answer in orders:
        expected = federation.model.apply(site.name, request_id)
        if answer is None:
            continue
        answers.append(answer)
        findings.refused_wrongly += answer.state is SiteState.REFUSED
        given = Expected(answer.state, answer.records, answer.entries)
        if given != expected:
            findings.broken.append(
                f"order {number} at {site.name} was answered {_words(given)}, not {_words(expected)}"
            )
    return answers


def _check_answers(
    federation: Federation,
    site: Site,
    store: KeyStore,
    answers: list[Acknowledgement],
    findings: BrokenPromises,
) -> None:
    known = store.orders.read_answers()
    claimed = {_claims(answer) for answer in known}
    applied = {answer.request_id for answer in known}
    asked = {name for name, request in federation.model.asked.items() if site.name in request.sites}
    findings.orders_skipped += len(asked - applied)
    for count, what in (
        (abs(store.orders.last - len(answers)), "orders lie between the last one applied and the last one answered"),
        (len(store.orders.read_unacknowledged()), "answers have not been given"),
        (sum(_claims(answer) not in claimed for answer in answers), "answers are not those that the site knows"),
        (len(applied - asked), "answers are known at one end only"),
    ):
        if count:
            findings.broken.append(f"{site.name}: {count} {what}")


def _count_missing(federation: Federation, model: SiteModel, store: KeyStore) -> int:
    """Return how many records and subjects that may not come back could be enrolled."""
    numbers = model.records.keys()
    references = [
        (federation.record_reference(number), _subject_of(federation, model, number) if number in numbers else _NOBODY)
        for number in model.refused_records
    ]
    references += [(_NOBODY, federation.subject_reference(number)) for number in model.refused_subjects]
    return sum(not store.records.refuses(record, subject) for record, subject in references)


def _subject_of(federation: Federation, model: SiteModel, number: int) -> bytes:
    return federation.subject_reference(model.records[number].subject)


def _entries(store: KeyStore) -> list[NDArray[np.int64]]:
    return [store.records.read_entries(split)[0] for split in Split]


def _check_rows(site: Site, findings: BrokenPromises) -> None:
    with closing(sqlite3.connect(site.folder.key_store)) as connection:
        if connection.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            findings.broken.append(f"{site.name}: the key store's file is damaged")
        if dangling := len(connection.execute("PRAGMA foreign_key_check").fetchall()):
            findings.broken.append(f"{site.name}: {dangling} rows are about entries that are gone")


def _claims(answer: Acknowledgement) -> tuple[object, ...]:
    return answer.number, answer.request_id, answer.state, answer.records, answer.entries, answer.guarantee


def _words(answer: Expected) -> str:
    return f"{answer.state} ({answer.records} records, {answer.entries} entries)"
