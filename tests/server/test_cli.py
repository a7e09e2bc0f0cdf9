"""`munkey-server` as a person uses it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import typer

from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.renewals import ReleasedWeights, SiteContribution
from fedmunkey.common.deletions.words import (
    OFFICER,
    Acknowledgement,
    DeletionRequest,
    SiteState,
    Subject,
    WholeSite,
)
from fedmunkey.common.errors import EXIT_CODE, InvalidSetting
from fedmunkey.common.privacy.guarantees import Guarantee, PrivacyLoss
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.supervision import own_program
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.ledger.ledger import Ledger
from tests.patience import PATIENCE
from tests.releases import give
from tests.typed import Run, runner

LONG_ID = "request-" + "0123456789" * 12
LOSSES = (PrivacyLoss(1.9, 1e-5), PrivacyLoss(4.1, 1e-5, 2))
CERTIFIED = Acknowledgement(1, "hospital-1", LONG_ID, SiteState.ERASED, 3, 2, Guarantee.CERTIFIED, 0.25, "", *LOSSES)
NOTHING = Acknowledgement(1, "hospital-2", LONG_ID, SiteState.NOTHING_HELD, 0, 0, Guarantee.EXACT, 0.25)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[str]:
    """The address of a service with one request that is half answered and one that is not."""
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(tmp_path / "ledger.sqlite"))
        for site in ("hospital-1", "hospital-2"):
            ledger.register(site)
        served = LedgerService(ledger)
        served.submit(DeletionRequest(LONG_ID, OFFICER, Subject(bytes(32))))
        served.submit(DeletionRequest("[red]second", "hospital-2", WholeSite("hospital-2")))
        served.acknowledge(CERTIFIED)
        yield stack.enter_context(DeletionServer(served)).address


def test_sites_are_registered_and_listed(run: Run, tmp_path: Path) -> None:
    ledger = str(tmp_path / "ledger.sqlite")
    run("sites", "--ledger", ledger, "--add", "hospital-2", "--add", "hospital-1")

    listed = run("sites", "--ledger", ledger, "--add", "hospital-1", "--json").json

    found = [(site["site"], site["orders"], site["pending"]) for site in listed]
    assert found == [("hospital-1", 0, 0), ("hospital-2", 0, 0)]


def test_requests_show_their_ids_in_full(run: Run, service: str) -> None:
    code, out, _ = run("requests", "--service", service)
    with DeletionChannel(service) as channel:
        channel.acknowledge(NOTHING)
    answered = run("requests", "--service", service).out

    assert code == 0
    assert LONG_ID in out
    assert "[red]second" in out
    assert "1/2" in out
    # What may be claimed is not said before the last site has answered.
    assert "certified" not in out
    assert "certified" in answered
    assert "4.10 for 2 records" in answered


def test_requests_as_json(run: Run, service: str) -> None:
    (early, _) = run("requests", "--service", service, "--json").json
    with DeletionChannel(service) as channel:
        channel.acknowledge(NOTHING)
    first, second = run("requests", "--service", service, "--json").json

    assert (early["state"], early["outcome"], early["guarantee"]) == ("dispatched", "pending", None)
    assert first["request_id"] == LONG_ID
    assert first["target"] == {"kind": "subject", "reference": "00" * 32}
    assert (first["state"], first["records"], first["guarantee"]) == ("completed", 3, "certified")
    assert first["subject_loss"] == {"epsilon": 4.1, "delta": 1e-5, "records": 2}
    assert second["target"] == {"kind": "site", "site": "hospital-2"}
    assert (second["guarantee"], second["subject_loss"]) == (None, None)


def test_one_request_shows_each_site(run: Run, service: str) -> None:
    _, out, _ = run("request", LONG_ID, "--service", service)
    first, second = (line.split() for line in out.splitlines() if line.startswith("hospital-"))

    assert LONG_ID in out
    assert first[:10] == ["hospital-1", "erased", "certified", "1.90", "a", "record,", "4.10", "for", "2", "records"]
    assert first[-4:] == ["1", "3", "2", "0.250"]
    assert second == ["hospital-2", "pending", "1"]

    one, two = run("request", LONG_ID, "--service", service, "--json").json["sites"]

    assert (one["site"], one["state"], one["entries"], one["seconds"]) == ("hospital-1", "erased", 2, 0.25)
    assert one["record_loss"] == {"epsilon": 1.9, "delta": 1e-5, "records": 1}
    assert one["subject_loss"] == {"epsilon": 4.1, "delta": 1e-5, "records": 2}
    assert (two["site"], two["state"], two["guarantee"]) == ("hospital-2", "pending", None)
    assert (two["record_loss"], two["subject_loss"]) == (None, None)


def test_site_leaves_and_comes_back(run: Run, service: str, tmp_path: Path) -> None:
    sites = ["sites", "--database", tmp_path / "ledger.sqlite", "--json"]

    leaving = run(*sites, "--remove", "hospital-2", "--reason", "it has closed")
    shown = run("request", LONG_ID, "--service", service, "--history").out
    back = run(*sites, "--add", "hospital-2").json
    again = run("request", LONG_ID, "--service", service, "--json", "--history").json

    assert leaving.err == "hospital-2 has left; 2 orders that it has not answered\n"
    assert {site["site"]: site["state"] for site in leaving.json} == {"hospital-1": "away", "hospital-2": "left"}
    assert "hospital-2 left the federation: it has closed" in shown
    assert "partial" in shown
    assert {site["site"]: site["state"] for site in back} == {"hospital-1": "away", "hospital-2": "away"}
    assert again["state"] == "dispatched"
    assert [move["to"] for move in again["history"]][-4:] == ["left", "partial", "pending", "dispatched"]


def test_late_request_is_shown_and_given_more_time(run: Run, tmp_path: Path) -> None:
    database = str(tmp_path / "late.sqlite")
    with Ledger(database, clock=lambda: utc_now() - timedelta(days=40)) as ledger:
        ledger.register("hospital-1")
        ledger.enter(DeletionRequest("old", "hospital-1", WholeSite("hospital-1")))
    with Ledger(database) as ledger:
        ledger.enter(DeletionRequest("young", "hospital-1", WholeSite("hospital-1")))
        with DeletionServer(LedgerService(ledger)) as server:
            late = run("requests", "--service", server.address, "--late", "--json").json
            status = run("status", "--database", database).out
            words = ["extend", "old", "--days", "20", "--database", database]
            code, out, _ = run(*words, "--reason", "hospital-1 restores its server")
            twice, _, err = run(*words, "--reason", "again")
            after = run("requests", "--service", server.address, "--late", "--json").json
            shown = run("request", "old", "--service", server.address).out

    assert [(request["request_id"], request["state"]) for request in late] == [("old", "overdue")]
    assert "late: 1 (munkey-server requests --late lists them)" in status
    assert (code, out.split()[:4]) == (0, ["request", "old", "is", "due"])
    assert (twice, "cannot be extended twice" in err) == (EXIT_CODE, True)
    assert after == []
    assert "given more time: hospital-1 restores its server" in shown


@pytest.mark.usefixtures("service")
def test_status_says_who_is_connected_and_what_is_pending(run: Run, tmp_path: Path) -> None:
    database = str(tmp_path / "ledger.sqlite")
    with Ledger(database) as ledger:
        ledger.note_contact(["hospital-1"], lasts=timedelta(minutes=5)).result()

    code, out, _ = run("status", "--database", database)
    shown = run("status", "--database", database, "--json").json

    assert code == 0
    assert out.splitlines()[0] == "sites: 1 of 2 connected"
    assert all(text in out for text in ("requests: 2 dispatched", "pending orders: 2, the oldest since 20", "late: 0"))
    assert (shown["connected_sites"], shown["pending_orders"], shown["late"]) == (1, 2, 0)
    assert [site["state"] for site in shown["sites"]] == ["connected", "away"]
    assert shown["oldest_pending_seconds"] >= 0


@pytest.mark.parametrize("late", [False, True])
def test_renewal_that_is_owed_is_shown_with_its_date(run: Run, tmp_path: Path, late: bool) -> None:
    database = str(tmp_path / "owed.sqlite")
    with Ledger(
        database, clock=lambda: utc_now() - timedelta(days=5), renew=timedelta(days=3 if late else 6)
    ) as ledger:
        ledger.register("hospital-1")
        released = ReleasedWeights("ab" * 32, 10, 10, (SiteContribution("hospital-1", 0, b""),))
        give(ledger, released)
        ledger.enter(DeletionRequest("own", "hospital-1", WholeSite("hospital-1")))
        ledger.acknowledge(Acknowledgement(1, "hospital-1", "own", SiteState.ERASED, 3, 2, Guarantee.EXACT, 0.25))
        by = ledger.status("own").renew_by
        assert by is not None
    # Who looks does not know what was promised; the ledger does.
    status = run("status", "--database", database)
    shown = run("status", "--database", database, "--json").json
    with Ledger(database) as ledger, DeletionServer(LedgerService(ledger)) as server:
        requests = run("requests", "--service", server.address).out
        one = run("request", "own", "--service", server.address).out
        listed = run("requests", "--service", server.address, "--json").json
        give(ledger, replace(released, contributions=(SiteContribution("hospital-1", 1, b""),)))
        renewed = run("requests", "--service", server.address).out
    after = run("status", "--database", database)

    passed = ", WHICH HAS PASSED: munkey-server run --renew --now" if late else ""
    assert f"waiting for renewed weights: 1 by {by:%Y-%m-%d %H:%M:%S}Z{passed}\n" in status.out
    assert (shown["renewals_owed"], shown["renew_by"]) == (1, by.isoformat())
    assert bool(shown["renewal_late_seconds"]) is late
    assert f"erased, renewed by {by:%Y-%m-%d}" in requests
    assert "erased" in one
    assert f"{by:%Y-%m-%d}" in one
    assert (listed[0]["state"], listed[0]["renew_by"]) == ("erased", by.isoformat())
    assert "renewed by" not in renewed
    assert "waiting for renewed weights" not in after.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["request", "request-9", "--service", "{service}"], "there is no request 'request-9'"),
        (["requests", "--service", "nowhere"], "host:port"),
        (["requests", "--service", "127.0.0.1:1"], "munkey-server serve"),
        (["sites", "--ledger", "unknown://host/name"], "--database"),
        (["serve", "--ledger", "{folder}/other.sqlite", "--address", "{service}"], "in use"),
        (["serve", "--ledger", "{folder}/other.sqlite", "--site", OFFICER], "cannot be a site's name"),
        (["request"], "munkey-server request --help"),
        (["sites", "--database", "{folder}/ledger.sqlite", "--remove", "hospital-9"], "'hospital-9' is not registered"),
        (["sites", "--database", "{folder}/x.sqlite", "--add", "a", "--remove", "a"], "both name 'a'"),
        (["extend", "r", "--days", "99", "--reason", "x", "--database", "{folder}/ledger.sqlite"], "1 to 60 days"),
        (["extend", "r", "--days", "9", "--reason", "x", "--database", "{folder}/ledger.sqlite"], "no request 'r'"),
        (["serve", "--database", "postgresql://localhost:1/x?connect_timeout=2"], "cannot be opened"),
        (["forget"], "munkey-server --help"),
    ],
)
def test_mistake_is_one_line(run: Run, service: str, tmp_path: Path, words: list[str], message: str) -> None:
    assert message in run(*(word.format(service=service, folder=tmp_path) for word in words)).error


def test_no_words_at_all_show_the_help(run: Run) -> None:
    code, out, err = run()

    assert code == EXIT_CODE
    assert "munkey-server [OPTIONS] COMMAND" in out + err


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt(), command_line.INTERRUPTED, ""),
        (InvalidSetting("two\nlines"), EXIT_CODE, "error: two lines\n"),
        (typer.Exit(3), 3, ""),
    ],
)
def test_command_line_ends_with_the_code_of_what_was_raised(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raised: BaseException, code: int, said: str
) -> None:
    failing = command_line.application("Fails.")

    @failing.callback()
    def nothing() -> None: ...

    @failing.command()
    def fail() -> None:
        raise raised

    ended = runner("munkey-test", lambda: command_line.run(failing), monkeypatch, capsys)("fail")

    assert (ended.code, ended.err) == (code, said)


@contextmanager
def serving(ledger: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Give a process of `munkey-server serve`."""
    with subprocess.Popen(  # noqa: S603
        [*own_program("fedmunkey.server.cli", "serve"), "--database", str(ledger), *options],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONWARNINGS": "default"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_served_until_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    ledger = tmp_path / "ledger.sqlite"
    options = ["--address", "127.0.0.1:0", "--site", "hospital-1", "--metrics", "127.0.0.1:0", "--log-format", "json"]
    with serving(ledger, *options) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = line.removeprefix("deletion service at ").partition(",")[0]
        with DeletionChannel(address) as channel:
            channel.submit(DeletionRequest("request-1", "hospital-1", WholeSite("hospital-1")))
        metrics = httpx.get(f"http://{line.rpartition('metrics at ')[2].strip()}/metrics", trust_env=False).text
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)

    assert (process.returncode, out) == (0, "")
    assert 'fedmunkey_requests{state="dispatched"} 1.0' in metrics
    assert [json.loads(line)["after"] for line in err.splitlines()][-1] == "dispatched"
    with Ledger(ledger) as opened:
        assert opened.status("request-1").request.requester == "hospital-1"


@pytest.mark.processes
def test_serving_beyond_this_machine_in_plain_text_warns(tmp_path: Path) -> None:
    with serving(tmp_path / "ledger.sqlite", "--address", "0.0.0.0:0", "--insecure") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE)

    assert process.returncode == 0
    assert "neither encrypted nor authenticated" in err
