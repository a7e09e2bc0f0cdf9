"""The page in a real browser: nothing fails, nothing is loaded, nothing sticks out, and tables sort."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from fedmunkey.simulations.reporting.files import write_report
from tests.browser import ARGUMENTS, CHROMIUM
from tests.simulations.reporting import examples

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}

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


def open_page(browser: Browser, path: Path, size: str, scheme: Any = "light") -> tuple[Page, list[str]]:
    """Open a file; the list fills with everything that a page should not do."""
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    faults: list[str] = []
    page.on("console", lambda message: faults.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("request", lambda request: faults.append(request.url) if request.url != path.as_uri() else None)
    page.goto(path.as_uri())
    return page, faults


@pytest.fixture(scope="module", params=["run", "audit", "comparison"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of each example, drawn once."""
    return write_report(getattr(examples, request.param)(), tmp_path_factory.mktemp(request.param))["html"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_page_fits_loads_nothing_and_can_be_read(browser: Browser, written: Path, size: str, scheme: str) -> None:
    page, faults = open_page(browser, written, size, scheme)
    smallest = page.evaluate(
        """Math.min(...Array.from(document.querySelectorAll("figure > svg text"), (text) =>
            parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a || Infinity))"""
    )
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    shot = page.screenshot(path=written.with_name(f"{size}-{scheme}.png"), full_page=True)
    wide = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    page.close()

    assert faults == []
    assert wide[0] <= wide[1]
    assert len(shot) > 50_000
    assert (max(background) < 60) == (scheme == "dark")
    assert smallest >= 9.5


def test_table_sorts_by_click_and_by_keyboard_and_the_command_is_copied_or_selected(
    browser: Browser, tmp_path: Path, audit: dict[str, Any]
) -> None:
    page, faults = open_page(browser, write_report(audit, tmp_path)["html"], "desktop")
    table = page.locator("#measures table.sortable").first
    heading = table.locator("th", has=page.get_by_role("button", name="After", exact=True))
    after = [measure["after"]["mean"] for measure in audit["measures"] if "after" in measure]

    def column() -> list[float | None]:
        found = table.locator("tbody tr td:nth-child(3)").all()
        values = [cell.get_attribute("data-value") for cell in found]
        return [float(value) if value else None for value in values]

    assert column() == [*after, None]
    assert heading.get_attribute("aria-sort") == "none"

    heading.get_by_role("button").click()
    assert column() == [*sorted(after), None]
    assert heading.get_attribute("aria-sort") == "ascending"

    heading.get_by_role("button").press("Enter")
    assert column() == [*sorted(after, reverse=True), None]
    assert heading.get_attribute("aria-sort") == "descending"

    table.get_by_role("button", name="Measure").press("Space")
    names = table.locator("tbody th").all_inner_texts()
    assert names == sorted(names, key=str.lower)
    assert heading.get_attribute("aria-sort") == "none"

    button = page.locator("[data-copy]")
    button.click()
    # The page's policy lets nobody evaluate a string, a test that waits included.
    expect(button).not_to_have_text("Copy")
    selected = page.evaluate("window.getSelection().toString()")
    assert (button.inner_text(), selected) in [("Copied", ""), ("Selected", audit["command"])]
    page.close()
    assert faults == []


def test_script_in_a_name_is_not_run(browser: Browser, tmp_path: Path, audit: dict[str, Any]) -> None:
    audit["data"]["name"] = "<script>alert(1)</script>"
    dialogs: list[str] = []

    path = write_report(audit, tmp_path)["html"]
    page, faults = open_page(browser, path, "phone")
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    page.reload()
    shown = page.locator(".facts dd").first.inner_text()
    page.close()

    assert dialogs == faults == []
    assert shown.startswith("<script>alert(1)</script>")
