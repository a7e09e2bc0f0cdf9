"""Chromium, where it is installed, and how tests start it."""

from __future__ import annotations

import shutil

CHROMIUM = shutil.which("chromium")
_WITHOUT = ("gpu", "background-networking", "component-update", "sync", "quic")
ARGUMENTS = ["--no-sandbox", "--no-first-run", *(f"--disable-{feature}" for feature in _WITHOUT)]
