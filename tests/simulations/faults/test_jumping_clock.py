from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import fedmunkey.server.cli
from fedmunkey.common.deletions.words import DeletionRequest, WholeSite
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.simulations.faults import jumping_clock
from fedmunkey.simulations.faults.jumping_clock import JumpingClock

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_clock_is_right_until_it_jumps(tmp_path: Path) -> None:
    clock = JumpingClock(tmp_path / "clock", lambda: NOW)
    told = [clock()]

    for seconds in (3600, -86_400, 0):
        clock.jump(seconds)
        told.append(clock())

    assert told == [NOW, NOW + timedelta(hours=1), NOW - timedelta(days=1), NOW]


def test_service_tells_the_time_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(jumping_clock.VARIABLE, str(tmp_path / "clock"))
    monkeypatch.setattr(fedmunkey.server.cli, "Ledger", Ledger)
    monkeypatch.setattr(
        sys, "argv", ["munkey-server", "sites", "--ledger", str(tmp_path / "ledger"), "--add", "hospital-1"]
    )
    JumpingClock(tmp_path / "clock").jump(40 * 86_400)

    with pytest.raises(SystemExit) as ended:
        jumping_clock.main()

    assert ended.value.code == 0
    with Ledger(tmp_path / "ledger") as ledger:
        (site,) = ledger.sites()
        status = ledger.enter(DeletionRequest("request-1", "hospital-1", WholeSite("hospital-1")), ["hospital-1"])
    assert site.registered_at - status.submitted_at > timedelta(days=39)
