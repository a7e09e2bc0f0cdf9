"""`munkey-server console` as a person types it; what its pages show is in `tests/server/console`."""

from __future__ import annotations

import re
import signal
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from fedmunkey.common.identities import MemberRole
from fedmunkey.common.programs.supervision import own_program
from fedmunkey.server.ledger.ledger import Ledger
from tests.coordinator import FIRST_OFFICER, running_coordinator
from tests.patience import PATIENCE
from tests.typed import Run


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--listen", "0.0.0.0:9461"], "can be reached from other machines"),
        (["--members-address", "127.0.0.1:9462"], "--members-address needs --coordinator-dir"),
        (["--members-address", "nowhere"], "nowhere"),
        (["--keys", "none.json"], "none.json"),
    ],
)
def test_what_cannot_be_served_is_said(run: Run, tmp_path: Path, words: list[str], fault: str) -> None:
    ledger = tmp_path / "ledger.sqlite"
    Ledger(str(ledger)).close()
    ended = run("console", "--database", ledger, "--no-browser", "--listen", "127.0.0.1:0", *words)

    assert fault in ended.error


def test_without_a_ledger_none_is_made(run: Run, tmp_path: Path) -> None:
    ended = run("console", "--database", tmp_path / "none.sqlite", "--no-browser")

    assert "there is no ledger" in ended.error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.processes
def test_console_of_a_coordinator_is_for_its_operator_and_members_until_it_is_interrupted(tmp_path: Path) -> None:
    with running_coordinator(tmp_path) as coordinator:
        officer = coordinator.member(FIRST_OFFICER, MemberRole.OFFICER)
        words = ["console", "--coordinator-dir", str(coordinator.folder.path), "--service", coordinator.address]
        words += ["--listen", "127.0.0.1:0", "--members-address", "127.0.0.1:0", "--no-browser"]
        with subprocess.Popen(  # noqa: S603 (this project's own program)
            own_program("fedmunkey.server.cli", *words), stdout=subprocess.PIPE, text=True
        ) as console:
            assert console.stdout is not None
            said, link = console.stdout.readline(), console.stdout.readline().removeprefix("open ").strip()
            found = re.search(r"for members at (https://\S+)", said)
            assert found is not None
            with httpx.Client(follow_redirects=True, timeout=PATIENCE) as browser:
                assert "Models" in browser.get(link).text
            trusted = ssl.create_default_context(cafile=officer.ca_file)
            trusted.load_cert_chain(officer.certificate_file, officer.key_file)
            with httpx.Client(verify=trusted, follow_redirects=True, timeout=PATIENCE) as browser:
                assert "Models" not in browser.post(f"{found[1]}open").text
                assert browser.get(f"{found[1]}requests").status_code == 200
            console.send_signal(signal.SIGINT)
            assert console.wait(PATIENCE) == 0
