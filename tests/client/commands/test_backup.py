"""Backing up, restoring and verifying, as a person types it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from fedmunkey.client.key_store import erasure_check, removal
from fedmunkey.client.records.dataset import Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.words import DeletionRequest, Records, WholeSite
from fedmunkey.server.deletions.ledger_service import LedgerService

from .conftest import SITE, TEST, TRAIN, Run


def order_deletion(ledger: LedgerService, folder: SiteFolder, record: str) -> None:
    reference = folder.read_secret().reference(record)
    ledger.submit(DeletionRequest(f"request-{record}", SITE, Records(frozenset([reference]), SITE)))


def test_restored_backup_forgets_again_and_answers_as_before(
    run: Run, folder: SiteFolder, ledger: LedgerService, service: str, tmp_path: Path
) -> None:
    backup = tmp_path / "monday.backup"
    words = ["--site-dir", folder.path, "--service", service]
    assert run("backup", "--site-dir", folder.path, "--output", backup, "--json").json["last_order"] == 0
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    order_deletion(ledger, folder, "scan-3")
    assert len(run("catch-up", *words, "--json").json) == 1

    restored = run("restore", backup, "--site-dir", folder.path, "--json").json
    assert restored == {"records": TRAIN + TEST, "unreadable": 1, "last_order": 0}
    assert "run munkey-client catch-up first" in run("verify-exact", "--site-dir", folder.path).error
    shown = run("status", "--site-dir", folder.path, "--json").json
    assert (shown["restored"], shown["trained_tokens"]) == (True, None)

    assert len(run("catch-up", *words, "--json").json) == 1

    shown = run("status", "--site-dir", folder.path, "--json").json
    assert (shown["restored"], shown["entries"], shown["last_order"]) == (False, TRAIN - 1, 1)
    assert shown["unanswered_orders"] == 0
    assert shown["last_backup"] is not None
    assert shown["encryption"]["record_keys"] == TRAIN + TEST - 1
    assert shown["encryption"]["destroyed"] == 1
    assert run("verify-exact", "--site-dir", folder.path).code == 0


def test_backup_overwrites_nothing(run: Run, folder: SiteFolder, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("something")

    refused = run("backup", "--site-dir", folder.path, "--output", tmp_path / "there").error

    assert "there is there already; name another file" in refused
    assert (tmp_path / "there").read_text() == "something"


def test_left_copy_is_found(run: Run, folder: SiteFolder, ledger: LedgerService, service: str, tmp_path: Path) -> None:
    with folder.open() as store:
        key = store.records.read_keys(store.records.read_entries(Split.TRAIN)[0][3:4]).numpy().tobytes()
    order_deletion(ledger, folder, "scan-3")
    run("catch-up", "--site-dir", folder.path, "--service", service)
    elsewhere = tmp_path / "flower-home"
    elsewhere.mkdir()
    words = ["verify-erasure", 1, "--site-dir", folder.path, "--also", elsewhere]
    clean = run(*words)
    assert (clean.code, "nothing is left" in clean.out) == (0, True)
    # Where everything is searched for, no limit is said.
    assert clean.out.count("\n") == 1

    (elsewhere / "cache.bin").write_bytes(b"cached: " + key)
    ended = run(*words)

    assert ended.code == 1
    assert "NOT ERASED" in ended.out
    assert "cache.bin" in ended.out
    assert "scan-3" not in ended.out


def test_order_that_was_never_applied_is_one_line(run: Run, folder: SiteFolder) -> None:
    assert "has not applied an order 4" in run("verify-erasure", 4, "--site-dir", folder.path).error


def test_limit_of_a_large_orders_search_is_said(
    run: Run, folder: SiteFolder, ledger: LedgerService, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (removal, erasure_check):
        monkeypatch.setattr(module, "MOST_FINGERPRINTED", 5)
    ledger.submit(DeletionRequest("request-1", SITE, WholeSite(SITE)))
    run("catch-up", "--site-dir", folder.path, "--service", service)
    words = ["verify-erasure", 1, "--site-dir", folder.path]

    said, document = run(*words).out, run(*words, "--json").json

    assert f"of {TRAIN + TEST} records, the bytes of 5, evenly spread, were looked for" in said
    assert (document["records"], document["records_searched"]) == (TRAIN + TEST, 5)


def test_restoring_beside_nothing_names_a_way_out(run: Run, folder: SiteFolder, service: str, tmp_path: Path) -> None:
    backup = tmp_path / "monday.backup"
    run("backup", "--site-dir", folder.path, "--output", backup)
    folder.key_store.unlink()
    folder.key_store.with_suffix(".journal").unlink()
    words = ["restore", backup, "--site-dir", folder.path]

    assert "restore with --without-journal" in run(*words).error
    assert run(*words, "--without-journal", "--json").json["records"] == TRAIN + TEST
    assert run("catch-up", "--site-dir", folder.path, "--service", service).code == 0
    assert run("status", "--site-dir", folder.path, "--json").json["influences"] == {"none": TEST, "unbounded": TRAIN}
