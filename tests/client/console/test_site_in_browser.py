"""A site's own screens in a real browser: its records and its models fit, can be read, and nothing fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from fedmunkey.client.commands.enrol import enrol
from fedmunkey.client.console.application import make_console
from fedmunkey.client.console.office import Office
from fedmunkey.client.deletions.lineage.exported_models import ExportRegister, describe
from fedmunkey.client.deletions.lineage.taken_releases import note_taken
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.ledger.ledger import Ledger
from tests.accessibility import SIZES, faults_of_screens
from tests.browser import ARGUMENTS, CHROMIUM
from tests.client.commands.conftest import write_records
from tests.console_case import served
from tests.patience import PATIENCE

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; `make browser` or `apt-get install chromium`"),
]
SITE = "hospital-1"
SCREENS = {"own": "/own", "models": "/models", "inbox": "/", "sites": "/sites"}


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Give what makes a link into the console of a site that has given a model away, and where that console is."""
    work = tmp_path_factory.mktemp("site")
    FederationSecret.generate().write(work / "federation.secret")
    data = write_records(work / "scans.npz", train=12)
    enrol(site_dir=work / SITE, site=SITE, data=data, secret=work / "federation.secret")
    folder = SiteFolder(work / SITE)
    with folder.open() as store:
        note_taken(folder, store, "1" * 64, 0)
        about = {"digest": "ab" * 32, "name": "chest.onnx", "release": "1" * 64, "case_mix": "federation"}
        ExportRegister(folder).add(describe(store, **about, time=utc_now()))
    with Ledger(work / "ledger.sqlite") as ledger:
        ledger.register(SITE)
        service = LedgerService(ledger)
        with DeletionServer(service) as server, DeletionChannel(server.address, timeout=PATIENCE) as channel:
            face = make_console(Office.of_site(folder), channel)
            with served(face, channel.close) as address:
                yield (lambda: face.entrance.address(address)), f"http://{address}"
        service.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.mark.parametrize(("size", "scheme", "language"), [("desktop", "light", "en-GB"), ("phone", "dark", "de-DE")])
def test_every_screen_of_a_site_fits_and_nothing_fails(
    browser: Browser, link: Any, size: str, scheme: Any, language: str, tmp_path: Path
) -> None:
    new_link, url = link
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, locale=language)
    page = context.new_page()
    page.goto(new_link())

    assert faults_of_screens(page, url, SCREENS, tmp_path) == []
    page.goto(f"{url}/models")
    assert "chest.onnx" in page.content()
    context.close()
