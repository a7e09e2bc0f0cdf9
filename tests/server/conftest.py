"""What tests of the coordinator need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmunkey.server.cli import main
from fedmunkey.server.ledger.ledger import Ledger
from tests.server.databases import postgresql_database
from tests.server.ledger.ledger_contract import Clock
from tests.typed import Run, runner


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `munkey-server`."""
    return runner("munkey-server", main, monkeypatch, capsys)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    """A ledger with two sites, in a file."""
    with Ledger(tmp_path / "ledger.sqlite", clock=clock) as ledger:
        for site in ("hospital-1", "hospital-2"):
            ledger.register(site)
        yield ledger


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database for a ledger, of each kind."""
    if request.param == "sqlite":
        yield str(tmp_path / "ledger.sqlite")
    else:
        with postgresql_database() as database:
            yield database
