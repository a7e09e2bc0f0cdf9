"""A picture of a console, as a browser draws it."""

from __future__ import annotations

import shutil
from pathlib import Path

from fedmunkey.common.errors import InvalidSetting

_WIDTH, _HEIGHT = 1200, 640


def draw_console(link: str, picture: Path) -> None:
    """Open a link in Chromium and write what it shows to a PNG file.

    Raises `InvalidSetting` where there is no Chromium, or nothing that drives it.
    """
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import ViewportSize, sync_playwright
    except ImportError:
        raise InvalidSetting("a picture is drawn with playwright; pip install 'fedmunkey[dev]'") from None
    if chromium is None:
        raise InvalidSetting("a picture is drawn with Chromium; run make browser, or leave --picture out")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(
            viewport=ViewportSize(width=_WIDTH, height=_HEIGHT), locale="en-GB", color_scheme="light"
        )
        page.goto(link)
        page.locator("#live tbody tr").first.wait_for()
        page.screenshot(path=picture)
        browser.close()
