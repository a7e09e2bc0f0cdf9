from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedmunkey.client.key_store.on_disk import schema
from fedmunkey.client.records.dataset import Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import OFFICER, DeletionRequest, RequestState, Subject, WholeSite
from fedmunkey.common.errors import EXIT_CODE
from fedmunkey.server.deletions.ledger_service import LedgerService
from tests.patience import PATIENCE

from .conftest import SITE, TEST, TRAIN, Run


@contextmanager
def stopping_when(so: Callable[[], bool], number: signal.Signals) -> Iterator[None]:
    """Send this process a signal once something is so, while the body runs; fails if it is not so in time."""
    seen, over, deadline = list[bool](), threading.Event(), time.monotonic() + PATIENCE

    def watch() -> None:
        while not over.wait(0.01):
            seen.append(so())
            if seen[-1] or time.monotonic() > deadline:
                os.kill(os.getpid(), number)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert any(seen)


def test_orders_apply_once(run: Run, folder: SiteFolder, ledger: LedgerService, service: str, secret: Path) -> None:
    reference = FederationSecret.read(secret).reference("scan-patient-3")
    ledger.submit(DeletionRequest("request-1", OFFICER, Subject(reference)))
    ledger.submit(DeletionRequest("request-2", SITE, Subject(bytes(32))))

    applied = run("catch-up", "--site-dir", folder.path, "--service", service, "--json").json
    again = run("catch-up", "--site-dir", folder.path, "--service", service)

    assert [(order["order"], order["state"], order["records"], order["guarantee"]) for order in applied] == [
        (1, "erased", 2, "exact"),
        (2, "nothing-held", 0, "exact"),
    ]
    assert "number 2" in again.out
    assert ledger.get("request-2").state is RequestState.COMPLETED
    with folder.open() as store:
        assert store.records.count(Split.TRAIN) == TRAIN - 2


def test_caught_up_orders_as_a_table(run: Run, folder: SiteFolder, ledger: LedgerService, service: str) -> None:
    ledger.submit(DeletionRequest("request-1", SITE, WholeSite(SITE)))

    shown = run("catch-up", "--site-dir", folder.path, "--service", service).out

    cells = shown.splitlines()[-1].split()
    assert cells[:6] == ["request-1", "erased", "exact", "1", str(TRAIN + TEST), str(TRAIN)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--service", "127.0.0.1:1", "--patience", "0"], "cannot be reached"),
        (["--service", "nowhere"], "host:port"),
        (["--patience", "-1"], "--patience"),
        (["--guarantee", "exact"], "No such option: --guarantee"),
    ],
)
def test_mistake_in_catching_up_is_one_line(run: Run, folder: SiteFolder, words: list[str], message: str) -> None:
    assert message in run("catch-up", "--site-dir", folder.path, *words).error


def test_locked_key_store_is_one_line(
    run: Run, folder: SiteFolder, ledger: LedgerService, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_BUSY_SECONDS", 0.0)
    ledger.submit(DeletionRequest("request-1", SITE, WholeSite(SITE)))
    other = sqlite3.connect(folder.key_store, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    ended = run("catch-up", "--site-dir", folder.path, "--service", service)
    other.close()

    assert "(database is locked)" in ended.error
    assert "try again" in ended.error


def test_certified_site_says_what_its_deletions_leave(
    run: Run, enrolment: list[object], tmp_path: Path, ledger: LedgerService, service: str
) -> None:
    run(*enrolment, "--guarantee", "certified")
    ledger.submit(DeletionRequest("request-1", SITE, WholeSite(SITE)))

    with stopping_when(lambda: ledger.get("request-1").state.final, signal.SIGTERM):
        agent = run("agent", "--site-dir", tmp_path / SITE, "--service", service)
    ledger.submit(DeletionRequest("request-2", SITE, WholeSite(SITE)))
    applied = run("catch-up", "--site-dir", tmp_path / SITE, "--service", service, "--json").json
    ledger.submit(DeletionRequest("request-3", SITE, WholeSite(SITE)))
    shown = run("catch-up", "--site-dir", tmp_path / SITE, "--service", service).out

    assert agent.out.splitlines()[-1].endswith(" s (certified, epsilon 0.00 a record, 0.00 for 2 records)")
    assert (applied[0]["guarantee"], applied[0]["record_loss"], applied[0]["subject_loss"]) == (
        "certified",
        *[{"epsilon": 0.0, "delta": 1e-5, "records": 1}] * 2,
    )
    assert shown.splitlines()[0].split()[:4] == ["request", "state", "guarantee", "epsilon"]
    assert shown.splitlines()[-1].split()[:6] == ["request-3", "nothing-held", "certified", "0.00", "a", "record"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_agent_carries_out_orders_until_a_signal(
    run: Run, folder: SiteFolder, ledger: LedgerService, service: str, number: signal.Signals
) -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    ledger.submit(DeletionRequest("request-1", SITE, WholeSite(SITE)))

    with stopping_when(lambda: ledger.get("request-1").state.final, number):
        ended = run("agent", "--site-dir", folder.path, "--service", service)

    greeting, line = ended.out.splitlines()
    assert (ended.code, ended.err) == (0, "")
    assert f"agent of {SITE}: orders after 0 from {service}" in greeting
    assert line.startswith(f"order 1: erased, {TRAIN + TEST} records, {TRAIN} entries, ")
    assert line.endswith(" s (exact)")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_agent_waits_for_an_absent_service(run: Run, folder: SiteFolder, caplog: pytest.LogCaptureFixture) -> None:
    with stopping_when(lambda: "trying again" in caplog.text, signal.SIGTERM):
        ended = run("agent", "--site-dir", folder.path, "--service", "127.0.0.1:1")

    assert ended.code == 0
    assert "cannot be reached" in caplog.text


def test_agent_tries_again_when_the_key_store_is_locked(
    run: Run,
    folder: SiteFolder,
    ledger: LedgerService,
    service: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schema, "_BUSY_SECONDS", 0.0)
    ledger.submit(DeletionRequest("request-1", SITE, WholeSite(SITE)))
    other = sqlite3.connect(folder.key_store, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")

    def unlocked_and_answered() -> bool:
        if other.in_transaction and "trying again" in caplog.text:
            other.rollback()
        return ledger.get("request-1").state.final

    with stopping_when(unlocked_and_answered, signal.SIGTERM):
        ended = run("agent", "--site-dir", folder.path, "--service", service)
    other.close()

    assert ended.code == 0
    assert "database is locked" in caplog.text
    assert f"order 1: erased, {TRAIN + TEST} records" in ended.out


def test_agent_of_an_unknown_site_is_one_line(run: Run, tmp_path: Path, enrolment: list[object], service: str) -> None:
    run(*enrolment, "--site", "hospital-9")

    ended = run("agent", "--site-dir", tmp_path / SITE, "--service", service)

    assert ended.code == EXIT_CODE
    assert ended.err.startswith("error: ")
    assert "hospital-9" in ended.err
