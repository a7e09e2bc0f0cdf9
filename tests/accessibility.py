"""Screens held against WCAG 2.2 AA and the width of a window, in a real browser."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from playwright.sync_api import Page, expect

ROOT = Path(__file__).parents[1]
AXE = Path(os.environ.get("MUNKEY_AXE", ROOT / "node_modules" / "axe-core" / "axe.min.js"))
"""The accessibility checker: `make browser` fetches it."""

SIZES = {"desktop": (1280, 860), "phone": (390, 844), "zoomed": (640, 430)}
"""Half of a desktop's size is what 200% of zoom leaves."""

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


def faults_of_screens(
    page: Page, url: str, screens: Mapping[str, str], folder: Path, *, connected: bool = True
) -> list[str]:
    """Go to screens by name and path, draw each into a folder, and return what is wrong with any of them.

    `connected` says that pages show whether the coordinator is there.
    """
    faults: list[str] = []
    if connected:
        page.on("console", lambda message: faults.append(f"{page.url}: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"{page.url}: {error}"))
    checker = AXE.read_text() if AXE.is_file() else ""
    for name, path in screens.items():
        page.goto(url + path)
        if connected:
            expect(page.locator("#connection")).not_to_have_class("connection lost")
        page.screenshot(path=folder / f"{name}.png")
        wide = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        if wide[0] > wide[1]:
            faults.append(f"{path} sticks out: {wide}")
        if checker:
            page.evaluate(checker)
            checked = page.evaluate("(rules) => axe.run(document, {runOnly: rules})", RULES)
            assert len(checked["passes"]) > 5
            faults += [f"{path} {found['id']}: {found['nodes'][0]['target']}" for found in checked["violations"]]
    return faults
