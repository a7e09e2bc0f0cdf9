"""Holds and opt-outs in the console, with and without a screen, in both languages; what a hold blocks there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect, sync_playwright

from fedmunkey.common.console.texts import Texts
from fedmunkey.common.deletions.words import Subject
from fedmunkey.common.proofs.duties import Duty
from fedmunkey.common.proofs.governance.blocks import verify_block
from fedmunkey.common.proofs.governance.instructions import InstructionKind
from fedmunkey.common.proofs.trusted_keys import Approved
from tests.browser import ARGUMENTS, CHROMIUM
from tests.console_case import ConsoleCase, csrf_of, forms, running_console
from tests.proof_case import SECRET, TRUST

PATIENT = "patient-17"


@pytest.fixture
def case(tmp_path: Path) -> Iterator[ConsoleCase]:
    with running_console(tmp_path) as running:
        yield running


@pytest.fixture
def browser(case: ConsoleCase) -> Iterator[httpx.Client]:
    with case.client() as client:
        yield client


def give(browser: httpx.Client, kind: str = "hold", ids: str = PATIENT, **changes: str) -> httpx.Response:
    form = {"kind": kind, "about": "subject", "ids": ids, "name": "case-12", "word": "give", **changes}
    return browser.post("/standing", data={"csrf": csrf_of(browser), **form})


def ask(browser: httpx.Client, ids: str = PATIENT) -> httpx.Response:
    csrf = csrf_of(browser)
    form = {"kind": "subject", "ids": ids, "site": "", "ground": "17-1-b", "reason": "", "csrf": csrf}
    draft = browser.post("/new", data=form).url.path
    return browser.post(f"{draft}/send", data={"csrf": csrf, "word": "forget"})


def in_force(case: ConsoleCase, kind: str = "hold") -> list[str]:
    return [one.instruction_id for one in case.service.ledger.standing().in_force(InstructionKind(kind))]


def test_hold_is_placed_blocks_with_a_receipt_and_is_released(case: ConsoleCase, browser: httpx.Client) -> None:
    placed = give(browser)
    assert "1 hold is in force." in placed.text
    assert PATIENT not in placed.text + str(placed.url)
    assert forms(placed.text, csrf_of(browser))

    blocked = ask(browser)

    assert "Nothing was asked for and nothing is erased: case-12." in blocked.text
    assert not case.service.page().statuses
    receipt = browser.post(f"{blocked.url.path}/receipt", data={"csrf": csrf_of(browser)})
    assert "attachment" in receipt.headers["content-disposition"]
    (hold,) = case.service.ledger.standing().in_force(InstructionKind.HOLD)
    assert verify_block(receipt.content, TRUST).holds == (hold.digest,)
    end = {"csrf": csrf_of(browser), "kind": "hold"}
    assert "Not confirmed" in browser.post(f"/standing/{hold.digest.hex()}/end", data={**end, "word": "x"}).text
    assert in_force(case) == ["case-12"]
    assert "is released" in browser.post(f"/standing/{hold.digest.hex()}/end", data={**end, "word": "release"}).text
    assert ask(browser).status_code == 200
    assert len(case.service.page().statuses) == 1


def test_of_several_drafts_one_that_is_held_keeps_the_others(case: ConsoleCase, browser: httpx.Client) -> None:
    give(browser)

    blocked = ask(browser, f"patient-1\n{PATIENT}\npatient-2\npatient-3")

    assert "2 other requests wait" in blocked.text
    assert len(case.service.page().statuses) == 1


def test_hold_says_which_requests_stand_already(case: ConsoleCase, browser: httpx.Client) -> None:
    case.ask("r-1", Subject(SECRET.reference(PATIENT)))

    assert "Request r-1 was asked before" in give(browser).text


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"word": "no"}, "Not confirmed"),
        ({"ids": " \n"}, "type ids, one a line"),
        ({"kind": "end"}, "say what is to be kept"),
        ({"about": "site"}, "say what is to be kept"),
    ],
)
def test_mistake_gives_nothing(case: ConsoleCase, browser: httpx.Client, changes: dict[str, str], fault: str) -> None:
    refused = give(browser, **changes)

    assert refused.status_code == 400
    assert fault in refused.text
    assert not case.service.instructions()


def test_opt_out_of_two_patients_is_two(case: ConsoleCase, browser: httpx.Client) -> None:
    assert "2 opt-outs are in force." in give(browser, "opt-out", "patient-1\npatient-2").text
    assert in_force(case, "opt-out") == ["case-12.1", "case-12.2"]


def test_who_may_only_look_is_told_so(case: ConsoleCase, browser: httpx.Client) -> None:
    TRUST.allow("officer-1", frozenset({Duty.VIEW})).write(case.folder / "trust.json")

    refused = give(browser)

    assert refused.status_code == 400
    assert "not theirs to sign" in refused.text
    assert browser.get("/standing").status_code == 200


def test_where_all_needs_two_a_patients_request_is_signed_and_handed_on(
    case: ConsoleCase, browser: httpx.Client
) -> None:
    keys = replace(TRUST, officers=2, approved=Approved.ALL)
    keys.write(case.folder / "keys.json")
    csrf = csrf_of(browser)
    form = {"kind": "subject", "ids": PATIENT, "site": "", "ground": "17-1-b", "reason": "", "csrf": csrf}
    draft = browser.post("/new", data=form).url.path

    assert "signatures of several officers" in browser.post(f"{draft}/send", data={"csrf": csrf, "word": "forget"}).text
    saved = browser.post(f"{draft}/save", data={"csrf": csrf, "word": "forget"})
    assert "attachment" in saved.headers["content-disposition"]
    shown = browser.post("/countersign", data={"csrf": csrf, "saved": saved.text})
    assert Texts.of("en")("draft.asks-subject", count=1) in shown.text
    assert PATIENT not in shown.text
    assert not case.service.page().statuses


@pytest.mark.processes
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; `make browser` or `apt-get install chromium`")
@pytest.mark.parametrize("language", ["en", "de"])
def test_by_mouse_alone_in_both_languages(case: ConsoleCase, language: str) -> None:
    texts = Texts.of(language)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = started.new_context(locale=language, viewport={"width": 1280, "height": 860}).new_page()
        faults: list[str] = []
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.goto(case.face.entrance.address(case.address))
        page.get_by_role("link", name=texts("standing.title")).click()
        page.get_by_text(texts("standing.hold"), exact=True).first.click()
        page.locator("#ids").fill(PATIENT)
        page.locator("#name").fill("case-12")
        page.locator("#word").fill(texts("standing.word"))
        page.get_by_role("button", name=texts("standing.sign")).click()
        expect(page.get_by_text(texts("standing.given-hold", count=1))).to_be_visible()
        page.goto(f"{case.url}/new")
        page.locator("#ids").fill(PATIENT)
        page.locator("#ground").select_option("17-1-b")
        page.locator("form.form button.main").click()
        page.locator("#word").fill(texts("new.word"))
        page.locator("form.confirm button.danger").click()
        expect(page.get_by_role("heading", name=texts("blocked.title"))).to_be_visible()
        with page.expect_download() as taken:
            page.get_by_role("button", name=texts("blocked.receipt")).click()
        assert verify_block(Path(taken.value.path()).read_bytes(), TRUST).holds
        page.goto(f"{case.url}/standing")
        page.locator("td input[name=word]").fill(texts("standing.word-end"))
        page.get_by_role("button", name=texts("standing.end-hold")).click()
        expect(page.get_by_text(texts("standing.ended-hold", name="case-12"))).to_be_visible()
        assert PATIENT not in page.content() + page.url
        assert not faults
        started.close()
    assert in_force(case) == []
