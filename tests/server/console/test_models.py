"""Models in the operator's console: runs, releases and what they descend from, audits, and what receipts name."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.renewals import ReleasedWeights
from fedmunkey.common.deletions.words import DeletionOrder, Subject
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.proofs.log_heads import LogHead
from fedmunkey.common.proofs.receipts import Receipt, WitnessedHead
from fedmunkey.common.proofs.signed_requests import OpenedRequest
from fedmunkey.server.rounds.run_record import RoundRecord, RunRecord
from tests.coordinators_console_case import CoordinatorsConsole, coordinators_console
from tests.patience import PATIENCE
from tests.proof_case import SECRET, SITE_KEYS, SITES, answered, contributed
from tests.simulations.reporting import examples

ONE, OTHER = SITES
FIRST, SECOND = "1" * 64, "2" * 64


@pytest.fixture
def case(tmp_path: Path) -> Iterator[CoordinatorsConsole]:
    with coordinators_console(tmp_path) as running:
        yield running


@pytest.fixture
def browser(case: CoordinatorsConsole) -> Iterator[httpx.Client]:
    with case.operator() as client:
        yield client


def ran(case: CoordinatorsConsole, name: str, digest: str, *, rounds: int = 1, **facts: str) -> Path:
    """Leave what a run leaves."""
    folder = case.desk.runs / name

    def write(path: Path) -> None:
        path.write_bytes(b"weights")

    with RunRecord(folder, {"guarantee": "exact", **facts}) as record:
        for number in range(1, rounds + 1):
            done = RoundRecord(
                number,
                sites=list(SITES),
                evaluation={ONE: {"test-accuracy": 0.5 + number / 1000}},
                mean={"test-accuracy": 0.5 + number / 1000},
                failures={"hospital-9": "its disk is full"},
                digest=digest,
            )
            record.note_round(done, write, score=None)
        record.note_finished()
    return folder


def release(case: CoordinatorsConsole, digest: str, records: int = 100) -> None:
    parts = tuple(contributed(site, case.coordinator.ledger.last_number(site), utc_now()) for site in SITES)
    case.coordinator.service.note_release(ReleasedWeights(digest, records, 0, parts))


def answer_naming(case: CoordinatorsConsole, order: DeletionOrder, *digests: str) -> None:
    """Have a site answer an order with a receipt that names models which it gave away."""
    update = case.coordinator.service.log_update(0)
    assert update is not None
    head = LogHead.of(update.head)
    seen = WitnessedHead(head.size, head.root)
    said = replace(answered(order, seen, utc_now(), Guarantee.EXACT), receipt=b"")
    receipt = Receipt(said, OpenedRequest.of(order.request).digest, utc_now(), bytes(32), seen, exported=digests)
    signed = receipt.sign(SITE_KEYS[order.site]).to_bytes()
    case.coordinator.service.acknowledge(replace(said, receipt=signed))


def test_before_anything_was_learned_that_is_said(browser: httpx.Client) -> None:
    shown = browser.get("/models").text

    for words in ("There is no run yet.", "There is no release yet.", "There is no report yet.", "No receipt names"):
        assert words in shown


def test_run_is_shown_with_rounds_and_curves(case: CoordinatorsConsole, browser: httpx.Client) -> None:
    ran(case, "2026-01-01-first", FIRST, rounds=60)
    ran(case, "2026-02-01-second", SECOND)

    listed = browser.get("/models").text
    assert re.findall(r'href="/models/runs/([^"]+)"', listed) == ["2026-02-01-second", "2026-01-01-first"]
    assert listed.index("in use") < listed.index("2026-01-01-first")
    first = browser.get("/models/runs/2026-01-01-first").text
    assert "Page 1 of 2" in first
    assert "56.0 %" in first
    assert "its disk is full" in first
    # The oldest rounds are on the last page.
    assert "50.1 %" in browser.get("/models/runs/2026-01-01-first?page=2").text
    curves = browser.get("/models/runs/2026-01-01-first/curves.svg")
    assert curves.headers["content-type"] == "image/svg+xml"
    assert curves.text.startswith("<svg")
    assert 'src="/models/runs/2026-01-01-first/curves.svg"' in first


def test_run_that_goes_on_is_read_anew(case: CoordinatorsConsole, browser: httpx.Client) -> None:
    folder = case.desk.runs / "2026-01-01-first"
    with RunRecord(folder, {"guarantee": "exact"}) as record:
        record.note_round(RoundRecord(1, sites=[ONE], digest=FIRST), None, score=None)
        assert "under way" in browser.get("/models").text
        record.note_round(RoundRecord(2, sites=[ONE], digest=SECOND), None, score=None)
        assert "2222222222222222" in browser.get("/models/runs/2026-01-01-first").text

    assert "cut off" in browser.get("/models").text


def test_release_says_what_it_descends_from_and_what_it_still_holds(
    case: CoordinatorsConsole, browser: httpx.Client
) -> None:
    release(case, FIRST)
    case.ask("request-1", Subject(SECRET.reference("one")))
    case.answer()
    release(case, SECOND)
    ran(case, "2026-01-01-first", FIRST)

    listed = browser.get("/models").text
    assert listed.index("Release 2") < listed.index("Release 1")
    assert listed.count("holds what was erased since") == 2
    old, new = browser.get("/models/releases/1").text, browser.get("/models/releases/2").text
    assert 'href="/requests/request-1"' in old
    assert "nothing that was erased since" in new
    assert all(site in new for site in SITES)
    assert "signed by the site" in new
    run = browser.get("/models/runs/2026-01-01-first").text
    assert "never given out again" in run
    assert 'href="/requests/request-1"' in run
    assert browser.get("/models/releases/3").status_code == 404


def test_release_that_is_given_out_again_descends_from_the_first(
    case: CoordinatorsConsole, browser: httpx.Client
) -> None:
    for digest in (FIRST, SECOND):
        release(case, digest)
    case.coordinator.ledger.release_again(FIRST)

    assert "release 1, given out again" in browser.get("/models").text
    assert 'href="/models/releases/1"' in browser.get("/models/releases/3").text


def test_audits_are_shown_with_their_verdicts(case: CoordinatorsConsole, browser: httpx.Client) -> None:
    folder = case.desk.audits
    (folder / "spring").mkdir(parents=True)
    document = examples.audit()
    (folder / "spring" / "report.json").write_text(json.dumps(document))
    (folder / "broken.json").write_text("{")
    (folder / "other.json").write_text(json.dumps(examples.run()))

    listed = browser.get("/models").text
    shown = browser.get("/models/audits/spring")

    flagged = sum(not verdict["passed"] for verdict in document["verdicts"])
    assert f"{flagged} flagged" in listed if flagged else "passed" in listed
    assert "cannot be read" in listed
    assert "other" not in re.findall(r'href="/models/audits/([^"]+)"', listed)
    assert all(verdict["title"] in shown.text for verdict in document["verdicts"])
    assert browser.get("/models/audits/..%2Fspring").status_code == 404
    # A report that is put there later is seen.
    (folder / "late.json").write_text(json.dumps(document))
    assert "/models/audits/late" in browser.get("/models").text


def test_model_that_a_receipt_names_must_be_replaced(case: CoordinatorsConsole, browser: httpx.Client) -> None:
    case.ask("request-1", Subject(SECRET.reference("one")))
    for site in SITES:
        (order,) = case.coordinator.service.watch(site, 0)
        answer_naming(case, order, *(["ab" * 32] if site == ONE else []))
    case.ask("request-2", Subject(SECRET.reference("two")))
    shown = ""
    until = time.monotonic() + PATIENCE
    while "abababab" not in shown and time.monotonic() < until:
        shown = browser.get("/models").text
    assert "must be replaced" in shown
    assert "1 model" in shown

    # One that is named while one looks is seen as well.
    (order,) = case.coordinator.service.watch(OTHER, 1)
    answer_naming(case, order, "cd" * 32)
    while "cdcdcdcd" not in shown and time.monotonic() < until:
        shown = browser.get("/models").text
    assert "2 models" in shown
    assert shown.index("cdcdcdcd") < shown.index("abababab")


def test_members_see_none_of_it(case: CoordinatorsConsole) -> None:
    ran(case, "2026-01-01-first", FIRST)
    with case.member(ONE) as browser:
        for path in ("/models", "/models/runs/2026-01-01-first", "/models/runs/2026-01-01-first/curves.svg"):
            assert browser.get(path).status_code == 404, path
