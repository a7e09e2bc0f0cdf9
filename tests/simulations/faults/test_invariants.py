"""The checks can fail: each promise is broken on purpose in a small federation, and found broken."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from fedmunkey.client.deletions.agent import catch_up
from fedmunkey.client.key_store import Tokens
from fedmunkey.client.key_store.on_disk.record_ciphers import SLOT_BYTES, cipher_file_of
from fedmunkey.client.records.dataset import Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.words import (
    OFFICER,
    DeletionRequest,
    RequestStatus,
    SiteProgress,
    SiteState,
    Subject,
)
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.server.deletions.coordinator_proofs import CoordinatorProofs
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.transparency_log.log import TransparencyLog
from fedmunkey.simulations.faults.federation import Federation, Site, make_federation
from fedmunkey.simulations.faults.invariants import BrokenPromises, check
from fedmunkey.simulations.faults.requests import draw_requests
from fedmunkey.simulations.faults.residue import Contents, not_overwritten
from fedmunkey.simulations.faults.signers import LOG_KEY, TRUST
from fedmunkey.simulations.faults.submissions import entry_numbers

DELETIONS = 12


@dataclass
class Run:
    """A federation that has forgotten: every request was made, and every site has caught up.

    `before` is a copy of the first site's folder from before that, `entries` are the entry numbers of its records.
    """

    federation: Federation
    contents: dict[str, Contents]
    statuses: list[RequestStatus]
    before: Path
    entries: dict[int, int]

    @property
    def first(self) -> Site:
        return self.federation.sites[0]

    def check(self, statuses: Sequence[RequestStatus] | None = None) -> BrokenPromises:
        return check(self.federation, self.statuses if statuses is None else statuses, self.contents)

    def gone(self) -> set[int]:
        """Return the records of the first site that the model says are gone."""
        return set(self.first.numbers) - set(self.federation.model.sites[self.first.name].labels)

    def change(self, statement: str, *values: bytes) -> None:
        """Change the first site's key store behind its back."""
        with closing(sqlite3.connect(self.first.folder.key_store)) as connection, connection:
            connection.execute(statement, values)

    def copy(self, folder: Path) -> Run:
        shutil.copytree(self.federation.folder, folder)
        sites = tuple(replace(site, folder=SiteFolder(folder / "sites" / site.name)) for site in self.federation.sites)
        model = deepcopy(self.federation.model)
        return replace(self, federation=replace(self.federation, folder=folder, sites=sites, model=model))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    federation = make_federation(tmp_path_factory.mktemp("federation"), DELETIONS, sites=2, seed=3)
    contents = {site.name: Contents() for site in federation.sites}
    for site in federation.sites:
        train(site)
        contents[site.name].note(site.folder.key_store, entry_numbers(site))
    before = Path(shutil.copytree(federation.sites[0].folder.path, tmp_path_factory.mktemp("before") / "copy"))
    entries = entry_numbers(federation.sites[0])
    return Run(federation, contents, forget(federation), before, entries)


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    """Return a copy that a test may break."""
    return finished.copy(tmp_path / "run")


def train(site: Site) -> None:
    """Give every entry a token that can be told from every other."""
    with site.folder.open() as store:
        entries, _ = store.records.read_entries(Split.TRAIN)
        draws = torch.Generator().manual_seed(len(site.name))
        arrays = torch.rand(3, len(entries), store.description.exemplar_size, generator=draws)
        steps = torch.ones(len(entries), dtype=torch.int64)
        store.records.write_tokens(store.generation, entries, Tokens(arrays[0], arrays[1], arrays[2], steps))


def forget(federation: Federation) -> list[RequestStatus]:
    with Ledger(federation.run_ledger.url) as ledger:
        for site in federation.sites:
            ledger.register(site.name)
        log = TransparencyLog(ledger.engine, SigningKey.read(federation.folder / LOG_KEY))
        service = LedgerService(ledger, proofs=CoordinatorProofs(log, federation.folder / TRUST))
        for drawn in draw_requests(federation, DELETIONS, random.Random(5)):
            service.submit(federation.sign(drawn.request))
            federation.model.ask(drawn.asked)
        for site in federation.sites:
            with site.folder.open() as store:
                catch_up(store, service)
        return list(service.requests())


def unanswered(status: RequestStatus) -> RequestStatus:
    pending = (SiteProgress(progress.site, progress.number, SiteState.PENDING) for progress in status.sites)
    return replace(status, sites=tuple(pending), recorded=None)


def test_federation_that_kept_its_promises_is_clean(run: Run) -> None:
    findings = run.check()

    assert findings == BrokenPromises(states=findings.states)
    assert findings.clean
    assert findings.states == {"completed": DELETIONS}
    # Something was deleted at each site, or there would be nothing to find.
    assert all(len(model.labels) < len(model.records) / 2 - 5 for model in run.federation.model.sites.values())


def test_request_that_is_in_no_ledger_or_that_no_site_has_answered_is_lost(run: Run) -> None:
    findings = run.check([unanswered(status) for status in run.statuses])

    assert run.check(run.statuses[1:]).lost == 1
    assert findings.lost == DELETIONS
    assert not findings.clean


def test_request_that_is_there_twice_or_nobody_made_is_noticed(run: Run) -> None:
    statuses = run.statuses
    stranger = RequestStatus(
        DeletionRequest("request-of-nobody", OFFICER, Subject(bytes(32))), statuses[0].submitted_at
    )

    broken = run.check([*statuses, statuses[0], stranger]).broken

    assert any("is in the ledger 2 times" in line for line in broken)
    assert "request-of-nobody was never asked for" in broken


def test_gap_in_the_numbers_is_noticed(run: Run) -> None:
    statuses = run.statuses
    last = statuses[-1]
    moved = replace(last, sites=tuple(replace(progress, number=progress.number + 1) for progress in last.sites))

    assert any("without gaps" in line for line in run.check([*statuses[:-1], moved]).broken)


def test_answer_that_claims_more_than_was_held_is_noticed(run: Run) -> None:
    statuses = run.statuses
    first = statuses[0].sites[0]
    assert first.acknowledgement is not None
    claim = replace(first.acknowledgement, state=SiteState.ERASED, records=7, entries=7)
    boasting = replace(statuses[0], sites=(replace(first, acknowledgement=claim), *statuses[0].sites[1:]))

    assert any("was answered erased (7 records" in line for line in run.check([boasting, *statuses[1:]]).broken)


def test_store_copied_back_after_a_deletion_resurrects_and_leaves_residue(run: Run) -> None:
    shutil.rmtree(run.first.folder.path)
    shutil.copytree(run.before, run.first.folder.path)

    findings = run.check()

    gone = len(run.gone())
    assert findings.resurrected == gone > 0
    assert findings.residue_bytes > 100 * gone
    assert any("orders lie between" in line for line in findings.broken)


def test_order_applied_twice_and_token_written_back_are_noticed(run: Run) -> None:
    gone = "SELECT entry FROM tokens WHERE entry NOT IN (SELECT entry FROM records) LIMIT 1"
    run.change(f"UPDATE tokens SET content = ? WHERE entry = ({gone})", b"\x01" * 40 + bytes(60))  # noqa: S608
    run.change("UPDATE description SET generation = generation + 1")

    found = run.check()

    assert (found.residue_bytes, found.applied_twice) == (40, 1)


def test_missing_tombstones_of_records_and_subjects_are_counted(run: Run) -> None:
    run.change("DELETE FROM tombstones")

    found = run.check()

    model = run.federation.model.sites[run.first.name]
    assert model.refused_subjects
    assert found.tombstones_missing == len(model.refused_records) + len(model.refused_subjects)
    assert not found.clean


def test_tombstone_of_one_subject_that_is_missing_is_counted(run: Run) -> None:
    asked = run.federation.model.asked.values()
    subject = next(each.named.subject for each in asked if each.named.subject is not None)
    with run.first.folder.open() as store:
        hash_ = store.reference_hashes.subject(run.federation.subject_reference(subject))
    run.change("DELETE FROM tombstones WHERE hash = ?", hash_)

    assert run.check().tombstones_missing == 1


def test_order_that_a_site_has_never_heard_is_skipped(run: Run) -> None:
    run.change("DELETE FROM applied_orders WHERE number = (SELECT max(number) FROM applied_orders)")

    assert run.check().orders_skipped == 1


def test_order_that_was_refused_though_it_was_good_is_counted(run: Run) -> None:
    status = run.statuses[0]
    progress = status.sites[0]
    assert progress.acknowledgement is not None
    refusal = replace(progress.acknowledgement, state=SiteState.REFUSED, records=0, entries=0, reason="expired")
    refusing = replace(status, sites=(replace(progress, acknowledgement=refusal), *status.sites[1:]))

    assert run.check([refusing, *run.statuses[1:]]).refused_wrongly == 1


@pytest.mark.parametrize("change", ["UPDATE neighbours SET masked = masked + 1", "UPDATE records SET split = 'val'"])
def test_state_that_is_not_that_of_never_having_held_what_is_gone_is_noticed(run: Run, change: str) -> None:
    run.change(change)

    assert run.check().digests_that_differ == 1


def test_wrapped_key_of_a_deleted_record_is_residue(run: Run) -> None:
    assert run.check().clean
    gone = min(run.gone())
    keys = cipher_file_of(run.first.folder.key_store)
    slot = (run.before / keys.name).read_bytes()[run.entries[gone] * SLOT_BYTES :][:SLOT_BYTES]
    contents = run.contents[run.first.name]
    (run.first.folder.path / "spill").write_bytes(b"." * 7 + slot)
    assert contents.residue(run.first.folder.path, {gone}) >= 32
    (run.first.folder.path / "spill").unlink()

    with keys.open("r+b") as file:
        file.seek(run.entries[gone] * SLOT_BYTES)
        file.write(slot)

    assert not_overwritten(run.first.folder.key_store) == len(slot) - slot.count(0)
    assert contents.residue(run.first.folder.path, {gone}) >= 32


@pytest.mark.parametrize("offset", [0, 5, 1 << 20])
def test_key_of_a_deleted_record_in_any_file_is_residue(run: Run, offset: int) -> None:
    assert run.check().clean
    with closing(sqlite3.connect(run.before / run.first.folder.key_store.name)) as connection:
        keys = dict(connection.execute("SELECT entry, content FROM keys"))
    gone = min(run.gone())
    stray = run.first.folder.path / "cache" / "neighbours.bin"
    stray.parent.mkdir()
    stray.write_bytes(b"." * offset + keys[run.entries[gone]])
    contents = run.contents[run.first.name]

    assert contents.residue(run.first.folder.path, {gone}) > 0
    stray.unlink()
    assert contents.residue(run.first.folder.path, {gone}) == 0
