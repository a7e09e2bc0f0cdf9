"""What must be true when the faults are over: ledger and key stores are compared with the plain model."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.deletions.words import Acknowledgement, RequestState, RequestStatus
from fedmunkey.simulations.faults.federation import Federation, Site, record_id
from fedmunkey.simulations.faults.model import Expected, SiteModel
from fedmunkey.simulations.faults.residue import Contents, not_overwritten


@dataclass
class BrokenPromises:
    """What was found broken; nothing, if every promise was kept.

    Lost are requests that were accepted, and are not in the ledger or not in a final state; applied twice are orders
    that changed a key store more than once; resurrected are records that are held though they were deleted. `broken`
    has a line for every other promise, without ids; `states` counts all requests.
    """

    lost: int = 0
    applied_twice: int = 0
    resurrected: int = 0
    residue_bytes: int = 0
    states: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.applied_twice or self.resurrected or self.residue_bytes or self.broken)


def check(
    federation: Federation, statuses: Sequence[RequestStatus], contents: Mapping[str, Contents]
) -> BrokenPromises:
    """Compare a federation whose processes have ended with its model, which is brought up to date on the way.

    The statuses are everything that the service knows, the contents what each site's key store held before deletions.
    """
    findings = BrokenPromises()
    _check_requests(federation, statuses, findings)
    for site in federation.sites:
        model = federation.model.sites[site.name]
        answers = _check_orders(federation, site, statuses, findings)
        with site.folder.open() as store:
            _check_store(federation, site, model, store, answers, findings)
        gone = set(site.numbers) - set(model.labels)
        findings.residue_bytes += contents[site.name].residue(site.folder.path, gone)
        findings.residue_bytes += not_overwritten(site.folder.key_store)
        _check_rows(site, findings)
    return findings


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
        given = Expected(answer.state, answer.records, answer.entries)
        if given != expected:
            findings.broken.append(
                f"order {number} at {site.name} was answered {_words(given)}, not {_words(expected)}"
            )
    return answers


def _check_store(
    federation: Federation,
    site: Site,
    model: SiteModel,
    store: KeyStore,
    answers: list[Acknowledgement],
    findings: BrokenPromises,
) -> None:
    held = set()
    for split in Split:
        entries, _ = store.records.read_entries(split)
        held |= {record for record, _ in store.records.read_ids(entries)}
    expected = {record_id(number) for number in model.labels}
    findings.resurrected += len(held - expected)
    findings.applied_twice += max(store.generation - model.generation, 0)
    applied = [_claims(answer) for answer in store.orders.read_answers()]
    unnoted = [
        answer for answer in model.refused_records if not store.records.has_deleted(federation.record_reference(answer))
    ]
    for count, what in (
        (len(expected - held), "records were deleted that nobody asked for"),
        (max(model.generation - store.generation, 0), "deletions have left no trace in the generation"),
        (abs(store.orders.last - model.order), "orders lie between the last one applied and the last one given"),
        (len(store.orders.read_unacknowledged()), "answers have not been given"),
        (sum(claims not in applied for claims in map(_claims, answers)), "answers are not those that the site knows"),
        (abs(len(applied) - len(answers)), "answers are known at one end only"),
        (len(unnoted), "deleted records could be enrolled again"),
    ):
        if count:
            findings.broken.append(f"{site.name}: {count} {what}")


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
