"""The console in a real browser: it moves by itself, fits, can be read and reached by keys, and nothing fails."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from fedmunkey.common.deletions.words import SiteState, Subject
from tests.accessibility import SIZES, faults_of_screens
from tests.browser import ARGUMENTS, CHROMIUM
from tests.console_case import ConsoleCase, running_console
from tests.proof_case import SECRET, SITES

SCREENS = {
    "inbox": "/",
    "filtered": "/requests?state=completed&kind=subject",
    "request": "/requests/waits",
    "done": "/requests/done",
    "new": "/new",
    "evidence": "/evidence/done",
    "not yet": "/evidence/waits",
    "bundle": "/evidence",
    "countersign": "/countersign",
    "standing": "/standing",
    "sites": "/sites",
    "log": "/log",
    "overview": "/overview",
}

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; `make browser` or `apt-get install chromium`"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleCase]:
    with running_console(tmp_path_factory.mktemp("console")) as running:
        running.ask("done", Subject(SECRET.reference("one")))
        running.answer()
        running.ask("nothing", Subject(SECRET.reference("two")))
        running.answer(state=SiteState.NOTHING_HELD)
        running.ask("waits")
        running.answer(sites=SITES[:1])
        yield running


def open_context(
    browser: Browser, case: ConsoleCase, size: str = "desktop", **kind: Any
) -> tuple[BrowserContext, Page]:
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, **kind)
    page = context.new_page()
    page.goto(case.face.entrance.address(case.address))
    return context, page


@pytest.mark.parametrize(
    ("size", "scheme", "language"),
    [
        ("desktop", "light", "en-GB"),
        ("desktop", "dark", "de-DE"),
        ("phone", "light", "de-DE"),
        ("zoomed", "dark", "en-GB"),
    ],
)
def test_every_screen_fits_and_nothing_fails(
    browser: Browser, case: ConsoleCase, size: str, scheme: Any, language: str, tmp_path: Path
) -> None:
    context, page = open_context(browser, case, size, color_scheme=scheme, locale=language)
    faults = faults_of_screens(page, case.url, SCREENS, tmp_path)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    context.close()

    assert faults == []
    assert (max(background) < 60) == (scheme == "dark")


def test_what_moves_in_the_ledger_is_on_the_screen_within_a_second(browser: Browser, case: ConsoleCase) -> None:
    context, page = open_context(browser, case)
    expect(page.locator("#connection")).to_have_text("Live")
    waits = []
    for number in range(5):
        name = f"moves-{number}"
        # Written by nobody who talks to the console: by another process, as far as that can tell.
        case.ask(name, Subject(SECRET.reference(name)))
        begun = time.monotonic()
        expect(page.locator(f'tr[data-request="{name}"]')).to_be_visible()
        waits.append(time.monotonic() - begun)
    # Of a request that is open, the row of a site changes while one looks.
    page.goto(f"{case.url}/requests/moves-0")
    case.answer()
    expect(page.locator("#live h1 .badge")).to_have_text("completed")
    context.close()

    # The best of some: this machine may be busy with much else.
    assert min(waits) < 1.0


def test_selection_outlives_rows_that_are_drawn_anew(browser: Browser, case: ConsoleCase) -> None:
    context, page = open_context(browser, case)
    page.get_by_label("Select request done").check()
    page.get_by_label("Select request nothing").check()
    expect(page.locator("#count")).to_have_text("2")

    case.ask("comes-meanwhile")
    expect(page.locator('tr[data-request="comes-meanwhile"]')).to_be_visible()

    expect(page.get_by_label("Select request done")).to_be_checked()
    expect(page.locator("#count")).to_have_text("2")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Certificates as one file").click()
    assert waiting.value.suggested_filename.startswith("evidence-")
    context.close()


def test_everything_is_reached_by_keys(browser: Browser, case: ConsoleCase) -> None:
    context, page = open_context(browser, case)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.goto(f"{case.url}/new")
    page.get_by_label("Ids, one a line").focus()
    page.keyboard.type("patient-by-keys")
    page.get_by_label("Legal ground").focus()
    page.keyboard.type("Art. 17(1)(b)")
    page.get_by_label("Reason").focus()
    page.keyboard.press("Enter")
    page.get_by_label("To confirm, type").focus()
    page.keyboard.type("forget")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="stands in the ledger")).to_be_visible()
    context.close()


def test_file_is_read_where_it_lies(browser: Browser, case: ConsoleCase, tmp_path: Path) -> None:
    listed = tmp_path / "patients-of-ward-7.csv"
    listed.write_text("subject_id,ward\npatient-a,7\npatient-b,7\n")
    context, page = open_context(browser, case)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(f"{request.url} {request.post_data or ''}"))
    page.goto(f"{case.url}/new")

    page.locator('input[type="file"]').set_input_files(listed)
    expect(page.get_by_label("Ids, one a line")).to_have_value(listed.read_text())
    page.get_by_label("Legal ground").select_option("17-1-c")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_text("2 patients are to be forgotten")).to_be_visible()
    context.close()

    assert not any("ward-7" in one for one in sent)


def test_coordinator_that_is_away_is_said_and_its_return_seen(browser: Browser, tmp_path: Path) -> None:
    with running_console(tmp_path) as case:
        context, page = open_context(browser, case)
        expect(page.locator("#connection")).to_have_text("Live")
        case.restart_service(while_down=lambda: expect(page.locator("#connection")).to_contain_text("out of reach"))
        expect(page.locator("#connection")).to_have_text("Live", timeout=20_000)
        case.ask("after")
        expect(page.locator('tr[data-request="after"]')).to_be_visible(timeout=20_000)
        context.close()
