from __future__ import annotations

from pathlib import Path

import pytest

from fedmunkey.client.site import SiteFolder

from .conftest import Run


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ([], "say whose console it is: a site's with --site-dir, or --as officer"),
        (["--as", "hospital-1"], "say whose console it is"),
        (["--as", "officer"], "name --signing-key and --secret"),
        (["--as", "officer", "--key", "none.pem", "--secret", "none"], "none.pem cannot be read"),
        (["--site-dir", "site", "--as", "officer"], "site holds all that a site needs; leave --as"),
    ],
)
def test_who_looks_must_be_said(run: Run, words: list[str], fault: str) -> None:
    assert fault in run("console", *words).error


def test_console_is_for_this_machine_and_needs_the_service(run: Run, folder: SiteFolder, tmp_path: Path) -> None:
    site = ["console", "--site-dir", folder.path, "--no-browser"]

    assert "can be reached from other machines" in run(*site, "--listen", "0.0.0.0:0").error
    assert "cannot be reached" in run(*site, "--listen", "127.0.0.1:0", "--service", "127.0.0.1:1").error
    assert not list(tmp_path.rglob("console-notes*"))
