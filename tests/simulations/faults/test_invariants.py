"""The checks can fail: each promise is broken on purpose in a small federation, and found broken."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from client.dataset import Split
from client.key_store import Tokens
from client.orders import catch_up
from common.deletion import DATA_PROTECTION_OFFICER, DeletionRequest, RequestStatus, SiteState, Subject
from server.deletion_service import LedgerService
from server.ledger import Ledger
from simulations.faults.federation import Federation, Site, make_federation
from simulations.faults.invariants import Findings, check
from simulations.faults.requests import draw_requests
from simulations.faults.residue import Contents
from simulations.faults.submissions import entry_numbers

DELETIONS = 12


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    federation = make_federation(tmp_path_factory.mktemp("federation"), DELETIONS, sites=2, seed=3)
    for site in federation.sites:
        train(site)
    return federation


def train(site: Site) -> None:
    """Give every entry a token that can be told from every other."""
    with site.folder.open() as store:
        entries, _ = store.read_entries(Split.TRAIN)
        draws = torch.Generator().manual_seed(len(site.name))
        arrays = torch.rand(3, len(entries), store.description.exemplar_size, generator=draws)
        steps = torch.ones(len(entries), dtype=torch.int64)
        store.write_tokens(store.generation, entries, Tokens(*arrays, steps))


class Run:
    """A federation without processes: requests are submitted, and every site catches up."""

    def __init__(self, made: Federation, folder: Path) -> None:
        shutil.copytree(made.folder, folder)
        sites = tuple(replace(s, folder=type(s.folder)(folder / "sites" / s.name)) for s in made.sites)
        self.federation = replace(made, folder=folder, sites=sites, model=deepcopy(made.model))
        self.contents = {site.name: Contents() for site in sites}
        for site in sites:
            self.contents[site.name].note(site.folder.key_store, entry_numbers(site))

    def forget(self, *, catch_up_too: bool = True) -> list[RequestStatus]:
        with Ledger(self.federation.ledger) as ledger:
            for site in self.federation.sites:
                ledger.register(site.name)
            service = LedgerService(ledger)
            for drawn in draw_requests(self.federation, DELETIONS, random.Random(5)):
                service.submit(drawn.request)
                self.federation.model.ask(drawn.asked)
            if catch_up_too:
                for site in self.federation.sites:
                    with site.folder.open() as store:
                        catch_up(store, service)
            return list(service.requests())

    def check(self, statuses: Sequence[RequestStatus]) -> Findings:
        return check(self.federation, statuses, self.contents)


@pytest.fixture
def run(made: Federation, tmp_path: Path) -> Run:
    return Run(made, tmp_path / "run")


def test_federation_that_kept_its_promises_is_clean(run: Run) -> None:
    findings = run.check(run.forget())

    assert findings == Findings(states=findings.states)
    assert findings.clean
    assert findings.states == {"completed": DELETIONS}
    # Something was deleted at each site, or there would be nothing to find.
    assert all(len(model.labels) < len(model.records) / 2 - 5 for model in run.federation.model.sites.values())


def test_request_that_is_in_no_ledger_is_lost(run: Run) -> None:
    statuses = run.forget()

    assert run.check(statuses[1:]).lost == 1


def test_request_that_no_site_has_answered_is_lost(run: Run) -> None:
    findings = run.check(run.forget(catch_up_too=False))

    assert findings.lost == DELETIONS
    assert not findings.clean


def test_request_that_is_there_twice_or_nobody_made_is_noticed(run: Run) -> None:
    statuses = run.forget()
    stranger = RequestStatus(
        DeletionRequest("request-of-nobody", DATA_PROTECTION_OFFICER, Subject(bytes(32))), statuses[0].submitted_at
    )

    broken = run.check([*statuses, statuses[0], stranger]).broken

    assert any("is in the ledger 2 times" in line for line in broken)
    assert "request-of-nobody was never asked for" in broken


def test_gap_in_the_numbers_is_noticed(run: Run) -> None:
    statuses = run.forget()
    last = statuses[-1]
    moved = replace(last, sites=tuple(replace(progress, number=progress.number + 1) for progress in last.sites))

    assert any("without gaps" in line for line in run.check([*statuses[:-1], moved]).broken)


def test_answer_that_claims_more_than_was_held_is_noticed(run: Run) -> None:
    statuses = run.forget()
    first = statuses[0].sites[0]
    assert first.acknowledgement is not None
    claim = replace(first.acknowledgement, state=SiteState.ERASED, records=7, entries=7)
    boasting = replace(statuses[0], sites=(replace(first, acknowledgement=claim), *statuses[0].sites[1:]))

    assert any("was answered erased (7 records" in line for line in run.check([boasting, *statuses[1:]]).broken)


def test_store_copied_back_after_a_deletion_resurrects_and_leaves_residue(run: Run, tmp_path: Path) -> None:
    site = run.federation.sites[0]
    copy = shutil.copytree(site.folder.path, tmp_path / "copy")
    statuses = run.forget()
    shutil.rmtree(site.folder.path)
    shutil.copytree(copy, site.folder.path)

    findings = run.check(statuses)

    gone = len(site.numbers) - len(run.federation.model.sites[site.name].labels)
    assert findings.resurrected == gone > 0
    assert findings.residue_bytes > 100 * gone
    assert any("orders lie between" in line for line in findings.broken)


def test_order_that_was_applied_twice_is_noticed(run: Run) -> None:
    statuses = run.forget()
    with closing(sqlite3.connect(run.federation.sites[0].folder.key_store)) as connection:
        connection.execute("UPDATE description SET generation = generation + 1")
        connection.commit()

    assert run.check(statuses).applied_twice == 1


def test_token_that_is_written_back_after_its_deletion_is_residue(run: Run) -> None:
    statuses = run.forget()
    with closing(sqlite3.connect(run.federation.sites[0].folder.key_store)) as connection:
        gone = "SELECT entry FROM tokens WHERE entry NOT IN (SELECT entry FROM records) LIMIT 1"
        connection.execute(f"UPDATE tokens SET content = ? WHERE entry = ({gone})", (b"\x01" * 40 + bytes(60),))  # noqa: S608
        connection.commit()

    assert run.check(statuses).residue_bytes == 40


@pytest.mark.parametrize("offset", [0, 5, 1 << 20])
def test_key_of_a_deleted_record_in_any_file_is_residue(run: Run, offset: int) -> None:
    site = run.federation.sites[0]
    with closing(sqlite3.connect(site.folder.key_store)) as connection:
        keys = dict(connection.execute("SELECT entry, content FROM keys"))
    entries = entry_numbers(site)
    statuses = run.forget()
    assert run.check(statuses).clean
    (gone, *_) = sorted(set(site.numbers) - set(run.federation.model.sites[site.name].labels))
    stray = site.folder.path / "cache" / "neighbours.bin"
    stray.parent.mkdir()
    stray.write_bytes(b"." * (offset - 3) + keys[entries[gone]])

    assert run.contents[site.name].residue(site.folder.path, {gone}) > 0
    stray.unlink()
    assert run.contents[site.name].residue(site.folder.path, {gone}) == 0


def test_tombstone_that_is_missing_is_noticed(run: Run) -> None:
    statuses = run.forget()
    with closing(sqlite3.connect(run.federation.sites[0].folder.key_store)) as connection:
        connection.execute("DELETE FROM tombstones")
        connection.commit()

    assert any("could be enrolled again" in line for line in run.check(statuses).broken)
