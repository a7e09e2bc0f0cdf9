"""What tests of the coordinator need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmunkey.server.cli import main
from tests.server.databases import postgresql_database
from tests.typed import Run, runner


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `munkey-server`."""
    return runner("munkey-server", main, monkeypatch, capsys)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database for a ledger, of each kind."""
    if request.param == "sqlite":
        yield str(tmp_path / "ledger.sqlite")
    else:
        with postgresql_database() as database:
            yield database
