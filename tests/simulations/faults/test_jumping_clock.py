from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import fedmunkey.common.clock
from fedmunkey.common.clock import utc_now
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.simulations.faults import timed_programs
from fedmunkey.simulations.faults.jumping_clock import TIME, WRONG, JumpingClock

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_clock_is_right_until_it_jumps(tmp_path: Path) -> None:
    clock = JumpingClock(tmp_path / "clock", lambda: NOW)
    told = [clock()]

    for seconds in (3600, -86_400, 0):
        clock.jump(seconds)
        told.append(clock())

    assert told == [NOW, NOW + timedelta(hours=1), NOW - timedelta(days=1), NOW]


@pytest.fixture
def clocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the clocks' files; this process tells the machine's time again afterwards."""
    monkeypatch.setenv(timed_programs.VARIABLE, str(tmp_path))
    monkeypatch.setattr(Ledger, "__init__", Ledger.__init__)
    monkeypatch.setattr(fedmunkey.common.clock, "datetime", datetime)
    return tmp_path


def test_service_tells_the_time_by_it(clocks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger_file = str(clocks / "ledger")
    monkeypatch.setattr(sys, "argv", ["munkey-server", "sites", "--ledger", ledger_file, "--add", "hospital-1"])
    JumpingClock(clocks / WRONG).jump(40 * 86_400)
    JumpingClock(clocks / TIME).jump(100 * 86_400)
    before = datetime.now(UTC)

    with pytest.raises(SystemExit) as ended:
        timed_programs.act_as_coordinator()

    assert ended.value.code == 0
    with Ledger(clocks / "ledger") as ledger:
        (site,) = ledger.sites()
    assert timedelta(days=140) <= site.registered_at - before < timedelta(days=141)
    # Everybody else in the process has its time, which is not wrong.
    assert timedelta(days=100) <= utc_now() - before < timedelta(days=101)
