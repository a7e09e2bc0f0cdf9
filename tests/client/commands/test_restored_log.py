"""A ledger goes back to a copy: its operator says so, an officer signs, sites follow, and nothing is lost."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.words import SiteState
from fedmunkey.server.cli import main as server_main
from fedmunkey.server.deletions.coordinator_proofs import CoordinatorProofs
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.transparency_log.log import TransparencyLog
from fedmunkey.server.transparency_log.log_key import open_log_key
from tests.typed import Ended, runner

from .conftest import OTHER, SITE, Run


class Restorable:
    """Two sites, an officer and a service over gRPC, whose ledger is copied and put back."""

    def __init__(self, path: Path, run: Run, server: Run) -> None:
        self.path = path
        self.run = run
        self.server = server
        self._serving = ExitStack()
        self.service = ""
        self.ledger: LedgerService

    @property
    def database(self) -> Path:
        return self.path / "ledger.sqlite"

    def start(self) -> None:
        _, key = open_log_key(None, str(self.database))
        opened = self._serving.enter_context(Ledger(self.database))
        proofs = CoordinatorProofs(TransparencyLog(opened.engine, key), self.path / "trust.json")
        self.ledger = self._serving.enter_context(closing(LedgerService(opened, proofs=proofs)))
        self.service = self._serving.enter_context(DeletionServer(self.ledger)).address

    def stop(self) -> None:
        self._serving.close()

    def copy(self) -> None:
        with closing(sqlite3.connect(self.database)) as ledger, closing(sqlite3.connect(self.path / "copy")) as copy:
            ledger.backup(copy)

    def put_back(self) -> None:
        self.stop()
        for file in self.path.glob("ledger.sqlite*"):
            if "log-key" not in file.name:
                file.unlink()
        shutil.copy(self.path / "copy", self.database)
        self.start()

    def ask(self, patient: str, request_id: str) -> Ended:
        return self.run(
            "forget", "--as", "officer", "--signing-key", self.path / "officer.pem", "--secret",
            self.path / "federation.secret", "--service", self.service, "--subject", patient,
            "--request-id", request_id, "--wait", 0,
        )  # fmt: skip

    def hear(self, *sites: str) -> None:
        for name in sites or (SITE, OTHER):
            ended = self.run("catch-up", "--site-dir", self.path / name, "--service", self.service)
            assert ended.code == 0, ended.err

    def restored(self, *words: object) -> Ended:
        """Say that the log was restored, with an officer's signature."""
        draft, signed = self.path / "draft.json", self.path / "signed.json"
        at = ["--database", self.database, "--keys", self.path / "trust.json"]
        for file in (draft, signed):
            file.unlink(missing_ok=True)
        assert self.server("restored", "--reason", "the disk failed", "--save", draft, *at, *words).code == 0
        key = self.path / "officer.pem"
        assert self.run("countersign", draft, "--signing-key", key, "--save", signed, "--yes").code == 0
        return self.server("restored", "--signed", signed, *at)

    def certified(self, request_id: str, output: Path) -> Ended:
        keys = self.path / "trust.json"
        made = self.run("certificate", request_id, "--service", self.service, "--output", output, "--keys", keys)
        assert made.code == 0, made.err
        return self.run("verify", output, "--keys", keys, "--require-erased", "--json")

    def alarms(self, site: str) -> list[str]:
        found = self.run("status", "--site-dir", self.path / site, "--json").json["alarms"]
        assert isinstance(found, list)
        return found


@pytest.fixture
def restorable(
    run: Run,
    folder: SiteFolder,
    secret: Path,
    second_site: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Restorable]:
    assert (folder.path, secret.parent) == (tmp_path / SITE, tmp_path)
    shutil.copytree(second_site, tmp_path / OTHER)
    run("signing-keys", "new", tmp_path / "officer.pem")
    place, _ = open_log_key(None, str(tmp_path / "ledger.sqlite"))
    for name in (SITE, OTHER):
        run("signing-keys", "new", "--site-dir", tmp_path / name)
    for where in (tmp_path, tmp_path / SITE, tmp_path / OTHER):
        run("trust", "add", "officer-1", tmp_path / "officer.pub", "--role", "officer", "--in", where)
        run("trust", "add", "log", place.with_suffix(".pub"), "--role", "log", "--in", where)
    for name in (SITE, OTHER):
        run("trust", "add", name, tmp_path / name / "site-key.pub", "--role", "site", "--in", tmp_path)
    made = Restorable(tmp_path, run, runner("munkey-server", server_main, monkeypatch, capsys))
    made.server("sites", "--add", SITE, "--add", OTHER, "--database", made.database)
    made.start()
    yield made
    made.stop()


def test_ledger_is_restored_sites_follow_and_what_it_lost_is_asked_again_as_it_was(restorable: Restorable) -> None:
    case, path = restorable, restorable.path
    case.ask("scan-patient-1", "r-1")
    case.hear()
    case.copy()
    case.ask("scan-patient-2", "r-2")
    case.hear()
    case.ask("scan-patient-3", "r-3")
    # Only one site hears the last request before the disk fails.
    case.hear(SITE)
    before = case.certified("r-2", path / "before.json")
    assert before.code == 0

    case.put_back()
    case.ask("scan-patient-4", "r-4")
    case.hear()
    assert any("cannot be trusted" in alarm for alarm in case.alarms(SITE))
    ended = case.restored("--size", 3)
    assert "sites follow it" in ended.out, ended.err
    case.hear()
    case.hear()

    # The site says once what it has lost sight of, and the alarms end.
    (alarm, note) = case.alarms(SITE)
    assert "restored from a copy of 3 leaves" in note
    assert "the disk failed" in note
    assert "officer-1" in note
    case.hear()
    assert case.alarms(SITE) == [alarm, note]
    shown = case.run("status", "--site-dir", path / SITE, "--json").json
    assert shown["receipts"]["signed"] == shown["receipts"]["in_the_log"]

    # The ledger knows again which requests it had, by their digests.
    status = case.server("status", "--database", case.database, "--json").json
    assert [said["reason"] for said in status["log_restored"]] == ["the disk failed"]
    assert [(lost["request_id"], lost["sites"]) for lost in status["lost_requests"]] == [
        ("r-2", [SITE, OTHER]),
        ("r-3", [SITE]),
    ]
    assert "LOST: request r-2" in case.server("status", "--database", case.database).out

    # Asked again, they are the requests that they were: both sites say what they erased, and not that nothing is held.
    case.ask("scan-patient-2", "r-2")
    case.ask("scan-patient-3", "r-3")
    case.hear()
    case.hear()
    for request_id in ("r-1", "r-2", "r-3", "r-4"):
        (asked,) = [found for found in case.ledger.requests() if found.request.request_id == request_id]
        assert [part.state for part in asked.sites] == [SiteState.ERASED] * 2
        verified = case.certified(request_id, path / f"{request_id}.json")
        assert verified.code == 0, verified.err
        assert verified.document["records"] == 4
        # Signed while the alarm stood: it names a head that the log has lost.
        assert (SITE in verified.document["lost_heads"]) == (request_id == "r-4")
    assert case.server("status", "--database", case.database, "--json").json["lost_requests"] == []
    # What was certified before stays certified.
    assert case.run("verify", path / "before.json", "--keys", path / "trust.json", "--require-erased").code == 0
    assert len(case.alarms(SITE)) == 2


def test_lost_id_does_not_stand_for_another_patient(restorable: Restorable) -> None:
    case = restorable
    case.copy()
    case.ask("scan-patient-2", "r-2")
    case.hear()
    case.put_back()
    case.restored()
    case.hear()
    case.hear()

    other = case.ask("scan-patient-3", "r-2")

    assert "sites have answered another request under the id 'r-2'" in other.error
    assert not list(case.ledger.requests())


def test_log_is_not_followed_without_an_officer(restorable: Restorable) -> None:
    case, draft = restorable, restorable.path / "draft.json"
    at = ["--database", case.database]
    case.ask("scan-patient-1", "r-1")
    case.hear()
    assert case.server("restored", "--reason", "the disk failed", "--save", draft, *at).code == 0

    for trust in ([], ["--keys", case.path / "trust.json"]):
        assert "officer" in case.server("restored", "--signed", draft, *at, *trust).error
    assert case.server("restored", "--reason", "two\nlines", "--save", case.path / "x", *at).code == 2
    assert case.server("restored", "--reason", "", "--save", case.path / "x", *at).code == 2
    assert "5" in case.server("restored", "--reason", "y", "--size", 5, "--save", case.path / "x", *at).error
    assert not (case.path / "x").exists()
    assert (
        "there is no ledger"
        in case.server("restored", "--reason", "y", "--save", case.path / "x", "--database", case.path / "none").error
    )
    assert not (case.path / "none").exists()
    assert case.server("restored", *at).code == 2
