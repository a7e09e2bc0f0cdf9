"""The coordinator's console in a real browser: it moves by itself, fits, can be read and reached by keys."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.renewals import ReleasedWeights
from fedmunkey.common.deletions.words import Subject, WholeSite
from fedmunkey.server.rounds.run_record import RoundRecord, RunRecord
from tests.accessibility import SIZES, faults_of_screens
from tests.browser import ARGUMENTS, CHROMIUM
from tests.coordinators_console_case import CoordinatorsConsole, coordinators_console
from tests.proof_case import SECRET, SITES, contributed
from tests.simulations.reporting import examples

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; `make browser` or `apt-get install chromium`"),
]

RUN = "2026-01-01-first"
SHARED = {
    "inbox": "/",
    "filtered": "/requests?state=completed&kind=subject",
    "request": "/requests/waits",
    "done": "/requests/done",
    "evidence": "/evidence/done",
    "bundle": "/evidence",
    "sites": "/sites",
    "log": "/log",
    "overview": "/overview",
}
OPERATORS = {
    "members": "/members",
    "models": "/models",
    "run": f"/models/runs/{RUN}",
    "release": "/models/releases/1",
    "audit": "/models/audits/spring",
}
FORMS = [
    ("desktop", "light", "en-GB"),
    ("desktop", "dark", "de-DE"),
    ("phone", "light", "de-DE"),
    ("zoomed", "dark", "en-GB"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoordinatorsConsole]:
    with coordinators_console(tmp_path_factory.mktemp("coordinator")) as running:
        part = tuple(contributed(site, 0, utc_now()) for site in SITES)
        running.coordinator.service.note_release(ReleasedWeights("1" * 64, 100, 0, part))
        running.ask("done", Subject(SECRET.reference("one")))
        running.answer()
        running.ask("waits", Subject(SECRET.reference("two")))
        running.answer(SITES[0])
        with RunRecord(running.desk.runs / RUN, {"guarantee": "exact"}) as record:
            told = {SITES[0]: {"test-accuracy": 0.9}}
            done = RoundRecord(1, sites=list(SITES), evaluation=told, mean={"test-accuracy": 0.9}, digest="1" * 64)
            record.note_round(done, None, score=None)
            record.note_finished()
        (running.desk.audits / "spring").mkdir(parents=True)
        (running.desk.audits / "spring" / "report.json").write_text(json.dumps(examples.audit()))
        yield running


def operators_page(browser: Browser, case: CoordinatorsConsole, size: str = "desktop", **kind: Any) -> Page:
    width, height = SIZES[size]
    page = browser.new_context(viewport={"width": width, "height": height}, **kind).new_page()
    page.goto(case.operators.entrance.address(case.operators_address))
    return page


def members_context(
    browser: Browser, case: CoordinatorsConsole, name: str, size: str = "desktop", **kind: Any
) -> BrowserContext:
    """Return a browser that holds a member's certificate, as one that a person has set up does."""
    identity = case.identities[name]
    shown = {
        "origin": case.members_url,
        "certPath": str(identity.certificate_file),
        "keyPath": str(identity.key_file),
    }
    width, height = SIZES[size]
    return browser.new_context(
        viewport={"width": width, "height": height},
        client_certificates=[shown],  # type: ignore[list-item]
        # The federation's authority is known to no browser before somebody has said so.
        ignore_https_errors=True,
        **kind,
    )


@pytest.mark.parametrize(("size", "scheme", "language"), FORMS)
def test_every_screen_of_the_operator_fits_and_nothing_fails(
    browser: Browser, case: CoordinatorsConsole, size: str, scheme: Any, language: str, tmp_path: Path
) -> None:
    page = operators_page(browser, case, size, color_scheme=scheme, locale=language)

    assert faults_of_screens(page, case.url, SHARED | OPERATORS, tmp_path) == []
    page.context.close()


@pytest.mark.parametrize(("size", "scheme", "language"), FORMS)
def test_every_screen_of_a_member_fits_and_nothing_fails(
    browser: Browser, case: CoordinatorsConsole, size: str, scheme: Any, language: str, tmp_path: Path
) -> None:
    context = members_context(browser, case, SITES[0], size, color_scheme=scheme, locale=language)
    page = context.new_page()
    page.goto(case.members_url)
    assert faults_of_screens(page, case.members_url, {"door": "/"}, tmp_path, connected=False) == []
    page.locator("main button").click()
    expect(page.locator("#connection")).not_to_have_class("connection lost")

    assert faults_of_screens(page, case.members_url, SHARED, tmp_path) == []
    context.close()


def test_what_moves_in_the_ledger_is_on_both_faces_within_a_second(browser: Browser, case: CoordinatorsConsole) -> None:
    operators = operators_page(browser, case, locale="en-GB")
    context = members_context(browser, case, SITES[0], locale="en-GB")
    members = context.new_page()
    members.goto(case.members_url)
    members.get_by_role("button", name="Open a session").click()
    for page in (operators, members):
        expect(page.locator("#connection")).to_have_text("Live")
    waits: dict[str, list[float]] = {"operator": [], "member": []}
    for number in range(4):
        for who, page in (("operator", operators), ("member", members)):
            name = f"moves-{who}-{number}"
            case.ask(name, Subject(SECRET.reference(name)))
            begun = time.monotonic()
            expect(page.locator(f'tr[data-request="{name}"]')).to_be_visible()
            waits[who].append(time.monotonic() - begun)
    # What is another site's is not told.
    case.ask("of-other", WholeSite(SITES[1]), requester=SITES[1])
    expect(operators.locator('tr[data-request="of-other"]')).to_be_visible()
    expect(members.locator('tr[data-request="of-other"]')).to_have_count(0)
    operators.context.close()
    context.close()

    # The best of some: this machine may be busy with much else.
    assert min(waits["operator"]) < 1.0
    assert min(waits["member"]) < 1.0


def test_operator_gives_more_time_and_lets_a_site_leave_by_mouse_and_keys(browser: Browser, tmp_path: Path) -> None:
    with coordinators_console(tmp_path) as case:
        case.ask("waits", WholeSite(SITES[0]), requester=SITES[0])
        page = operators_page(browser, case, locale="en-GB")
        page.get_by_role("link", name="waits").click()
        page.get_by_label("Days, at most").fill("10")
        page.get_by_label("Why").fill("the site is moved")
        # What was typed outlives what moves meanwhile.
        case.coordinator.ledger.note_delivered([(SITES[0], 1)]).result()
        expect(page.locator("#live")).to_contain_text("delivered")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status").filter(has_text="It is due on")).to_be_visible()
        page.get_by_role("link", name="Sites").first.click()
        form = page.locator('form[action="/sites/remove"]')
        form.get_by_label("Name of the site").fill(SITES[0])
        form.get_by_label("To confirm, type the name again").fill(SITES[0])
        form.get_by_role("button").click()
        expect(page.get_by_role("status").filter(has_text="has left")).to_be_visible()
        page.get_by_role("link", name="Members").click()
        form = page.locator('form[action="/members/invite"]')
        form.get_by_label("Name of the member").fill("hospital-3")
        with page.expect_download() as waiting:
            form.get_by_role("button").click()
        assert waiting.value.suggested_filename == "invitation-hospital-3.json"
        page.context.close()


def test_member_that_ends_its_session_is_out_until_it_opens_another(
    browser: Browser, case: CoordinatorsConsole
) -> None:
    context = members_context(browser, case, SITES[0], locale="en-GB")
    page = context.new_page()
    page.goto(case.members_url)
    page.get_by_role("button", name="Open a session").click()
    page.get_by_role("button", name="End session").click()
    expect(page.get_by_text("The session has ended.")).to_be_visible()
    page.goto(f"{case.members_url}/requests")
    expect(page.get_by_role("button", name="Open a session")).to_be_visible()
    context.close()
