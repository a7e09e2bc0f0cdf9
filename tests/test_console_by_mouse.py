"""A whole deletion by mouse: from a new request to a verified certificate, against real processes over TLS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from fedmunkey.simulations.deploy_local.console_demo import ConsoleDemo
from fedmunkey.simulations.deploy_local.hospital_files import HOSPITALS, PATIENT
from fedmunkey.simulations.deploy_local.terminal import Background, Terminal
from fedmunkey.simulations.federation.sources import load_dataset
from tests.browser import ARGUMENTS, CHROMIUM

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; `make browser` or `apt-get install chromium`"),
]
PATIENCE_MS = 120_000


@dataclass
class Deployment:
    """What runs, the link that opens the console, and where everything is written."""

    folder: Path
    console: Background
    link: str


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    images = load_dataset("digits", data_dir=None, seed=0)
    with Terminal(folder, lambda _: None) as terminal:
        demo = ConsoleDemo(terminal, images)
        demo.serve()
        yield Deployment(folder, *demo.open_console())


@pytest.fixture(scope="module")
def context() -> Iterator[BrowserContext]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        context = browser.new_context(accept_downloads=True, locale="en-GB")
        context.set_default_timeout(PATIENCE_MS)
        yield context
        context.close()
        browser.close()


def test_patient_is_forgotten_by_mouse_and_named_nowhere(
    deployment: Deployment, context: BrowserContext, tmp_path: Path
) -> None:
    page = context.new_page()
    faults: list[str] = []
    addresses: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(deployment.link)

    page.get_by_role("link", name="New request").first.click()
    page.get_by_label("Ids, one a line").fill(PATIENT)
    page.get_by_label("Legal ground").select_option("17-1-b")
    page.get_by_role("button", name="Preview").click()
    for hospital in HOSPITALS:
        expect(page.get_by_text(hospital)).to_be_visible()
    page.get_by_label("To confirm, type").fill("forget")
    page.get_by_role("button", name="Sign and ask").click()
    expect(page.locator("#live h1 .badge")).to_have_text("completed", timeout=PATIENCE_MS)
    page.get_by_role("link", name="Evidence", exact=True).last.click()
    expect(page.locator(".verdict")).to_contain_text("The certificate holds. 6 records erased")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Certificate file").click()

    certificate = tmp_path / "certificate.json"
    waiting.value.save_as(certificate)
    assert b"receipt" in certificate.read_bytes()
    assert faults == []
    _find_nowhere(page, addresses, deployment)


def _find_nowhere(page: Page, addresses: list[str], deployment: Deployment) -> None:
    """Look for the patient's id in all that a browser keeps, and in all that is written or sent to the coordinator."""
    kept = page.evaluate(
        """async () => JSON.stringify([
            {...localStorage}, {...sessionStorage}, document.cookie, document.title, location.href,
            await indexedDB.databases(), await caches.keys(), document.documentElement.outerHTML])"""
    )
    shown = [*addresses, kept]
    while page.url not in ("about:blank", deployment.link) and page.go_back() is not None:
        shown += [page.url, page.title(), page.content()]
        if page.url.endswith("/requests") or page.url.endswith(":/"):
            break
    assert [text for text in shown if PATIENT in text] == []
    written = [*deployment.folder.glob("*.log"), *(deployment.folder / "coordinator").rglob("*")]
    assert len(written) > 5
    holding = [path for path in written if path.is_file() and PATIENT.encode() in path.read_bytes()]
    assert holding == []
