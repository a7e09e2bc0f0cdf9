"""The coordinator renews weights by itself: when enough records are gone, or the first has waited long enough."""

from __future__ import annotations

import logging
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.renewals import ReleasedWeights, RenewalNeed, SiteContribution
from fedmunkey.common.deletions.words import Acknowledgement, SiteState
from fedmunkey.common.errors import EXIT_CODE
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.programs.supervision import own_program
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.server.superlink import renewing
from fedmunkey.server.superlink.coordinator_file import CoordinatorFile
from fedmunkey.server.superlink.renewing import RENEWING_READY, is_due, renew_when_due
from fedmunkey.server.superlink.up import children
from tests.closed_port import closed_port
from tests.patience import PATIENCE
from tests.processes import Running, gone
from tests.releases import give
from tests.server.ledger.ledger_contract import own_site
from tests.server.superlink.test_coordinator_file import written
from tests.typed import Run

NOON = datetime(2030, 5, 17, 12, tzinfo=utc_now().tzinfo)
WEEK = timedelta(days=7)
RUN = "[run]\nfewest-changed = 10\nrenew-within = 4.0\n"
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("need", "due"),
    [
        (RenewalNeed(0, None, 100), False),
        (RenewalNeed(50, NOON - DAY, None), False),
        (RenewalNeed(9, NOON + WEEK, 100), False),
        (RenewalNeed(10, NOON + WEEK, 100), True),
        (RenewalNeed(10, None, 100), True),
        (RenewalNeed(1, None, 100), False),
        (RenewalNeed(1, NOON + 0.25 * WEEK + timedelta(seconds=1), 100), False),
        (RenewalNeed(1, NOON + 0.25 * WEEK, 100), True),
        (RenewalNeed(1, NOON - DAY, 100), True),
        # A round that has solved for weights is given time to give them out.
        (RenewalNeed(0, None, 100, solved_at=NOON - timedelta(minutes=19)), False),
        (RenewalNeed(50, NOON + WEEK, 100, solved_at=NOON - timedelta(minutes=19)), False),
        (RenewalNeed(0, None, 100, solved_at=NOON - timedelta(minutes=20)), True),
        (RenewalNeed(0, None, None, solved_at=NOON - DAY), True),
    ],
)
def test_enough_records_or_a_quarter_of_the_time_make_it_due(need: RenewalNeed, due: bool) -> None:
    assert is_due(need, 10, WEEK, NOON) is due


@pytest.fixture
def file(tmp_path: Path) -> CoordinatorFile:
    return CoordinatorFile.read(written(tmp_path, RUN))


@pytest.fixture
def ledger(file: CoordinatorFile) -> Iterator[Ledger]:
    """A ledger whose weights were solved for with one site's records."""
    with Ledger(file.ledger, renew=timedelta(days=4)) as ledger:
        ledger.register("hospital-1")
        release(ledger)
        yield ledger


def release(ledger: Ledger) -> None:
    part = SiteContribution("hospital-1", ledger.last_number("hospital-1"), b"")
    give(ledger, ReleasedWeights("ab" * 32, 100, 12, (part,)))


def erase(ledger: Ledger, entries: int) -> None:
    number = ledger.last_number("hospital-1") + 1
    ledger.enter(own_site(f"own-{number}"))
    counted = (SiteState.ERASED, entries, entries, Guarantee.EXACT, 0.25)
    ledger.acknowledge(Acknowledgement(number, "hospital-1", f"own-{number}", *counted))


class Renewals:
    """Renews as it is told to, until it has been asked so often; with each call it says whether few are enough."""

    def __init__(self, ledger: Ledger, succeeds: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(renewing, "_LOOK_SECONDS", 0.01)
        monkeypatch.setattr(renewing, "_AFTER_FAILURE_SECONDS", 0.3)
        self.stop = threading.Event()
        self.told: list[bool] = []
        self.at: list[float] = []
        self._ledger = ledger
        self._succeeds = succeeds

    def renew(self, few: bool) -> bool:
        self.told.append(few)
        self.at.append(time.monotonic())
        done = self._succeeds[len(self.told) - 1]
        if done:
            release(self._ledger)
        if len(self.told) == len(self._succeeds):
            # It looks once more, and finds nothing to do, before it stops.
            threading.Timer(0.1, self.stop.set).start()
        return done


def test_enough_records_are_renewed_once(
    ledger: Ledger, file: CoordinatorFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    erase(ledger, 10)
    renewals = Renewals(ledger, [True], monkeypatch)

    renew_when_due(ledger, file, renewals.renew, renewals.stop)

    assert renewals.told == [False]
    assert ledger.renewal_need().entries == 0


def test_few_records_wait_for_others_until_it_is_time(
    ledger: Ledger, file: CoordinatorFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    erase(ledger, 1)
    renewals = Renewals(ledger, [True], monkeypatch)
    looked: list[datetime] = []

    def clock() -> datetime:
        """Show an hour more at each look."""
        looked.append(utc_now() + len(looked) * timedelta(hours=1))
        return looked[-1]

    due = ledger.renewal_need().renew_by
    assert due is not None
    renew_when_due(ledger, file, renewals.renew, renewals.stop, clock=clock)

    # Of four days, one was left.
    assert renewals.told == [True]
    begun = next(at for at in looked if at >= due - DAY)
    assert looked[71] < due - DAY <= begun
    assert begun in looked[72:74]


def test_renewal_that_failed_is_tried_again_after_a_while(
    ledger: Ledger, file: CoordinatorFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    erase(ledger, 12)
    renewals = Renewals(ledger, [False, False, True], monkeypatch)

    renew_when_due(ledger, file, renewals.renew, renewals.stop)

    first, second, third = renewals.at
    assert second - first >= 0.3
    assert third - second >= 0.3
    assert ledger.renewal_need().entries == 0


def test_ledger_that_is_out_of_reach_is_looked_at_again(
    ledger: Ledger, file: CoordinatorFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    erase(ledger, 12)
    renewals = Renewals(ledger, [True], monkeypatch)

    def rename(before: str, after: str) -> None:
        with ledger.engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER TABLE {before} RENAME TO {after}")

    rename("releases", "away")
    back = threading.Timer(0.2, rename, ("away", "releases"))
    back.start()
    with caplog.at_level(logging.WARNING):
        renew_when_due(ledger, file, renewals.renew, renewals.stop)
    back.join()

    assert renewals.told == [False]
    assert "the ledger" in caplog.text
    assert "cannot be used" in caplog.text


def test_coordinator_keeps_it_running(file: CoordinatorFile, tmp_path: Path) -> None:
    (child,) = (child for child in children(file, tmp_path / "coordinator.toml") if child.name == "renewals")

    assert child.ready == RENEWING_READY
    assert child.command == own_program(
        "fedmunkey.server.superlink.renewing", str((tmp_path / "coordinator.toml").absolute())
    )


def test_weights_that_not_all_sites_have_are_something_to_renew(
    run: Run, ledger: Ledger, tmp_path: Path, file: CoordinatorFile
) -> None:
    """A round has died before it gave them out; nothing is owed, and still the next one must be begun."""
    CoordinatorFolder(file.coordinator_dir).create("test federation", ["127.0.0.1"])
    ledger.note_release(ReleasedWeights("cd" * 32, 100, 0, (SiteContribution("hospital-1", 0, b""),)))
    with closed_port() as port:
        path = written(tmp_path, f'superlink-control = "127.0.0.1:{port}"\n{RUN}')

        ended = run("run", path, "--renew")

    assert ledger.renewal_need().entries == 0
    assert ended.code == EXIT_CODE
    assert f"nothing answers at superlink-control = 127.0.0.1:{port}" in ended.err


@pytest.mark.usefixtures("ledger")
def test_run_that_has_nothing_to_renew_starts_nothing(run: Run, tmp_path: Path, file: CoordinatorFile) -> None:
    CoordinatorFolder(file.coordinator_dir).create("test federation", ["127.0.0.1"])

    said, shown = (run("run", tmp_path / "coordinator.toml", "--renew", *more) for more in ([], ["--json"]))

    assert (said.code, said.out) == (0, "nothing to renew: the shared weights hold nothing of what was deleted\n")
    assert shown.json == []


def test_other_guarantees_are_never_renewed(
    ledger: Ledger, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training would not take from the weights what a deletion owes, and would begin again and again."""
    path = written(tmp_path, f'{RUN}guarantee = "empirical"\n')
    CoordinatorFolder(tmp_path / "coordinator").create("test federation", ["127.0.0.1"])
    erase(ledger, 12)
    renewals = Renewals(ledger, [True], monkeypatch)
    threading.Timer(0.3, renewals.stop.set).start()

    renew_when_due(ledger, CoordinatorFile.read(path), renewals.renew, renewals.stop)

    error = run("run", path, "--renew").error
    assert renewals.told == []
    assert "guarantee = empirical: only weights of exact are renewed; leave --renew out" in error


@pytest.mark.processes
def test_run_that_is_owed_and_cannot_start_says_why(
    run: Run, ledger: Ledger, tmp_path: Path, file: CoordinatorFile
) -> None:
    CoordinatorFolder(file.coordinator_dir).create("test federation", ["127.0.0.1"])
    erase(ledger, 12)
    with closed_port() as port:
        path = written(tmp_path, f'superlink-control = "127.0.0.1:{port}"\n{RUN}')

        ended = run("run", path, "--renew")

    assert ended.code == EXIT_CODE
    assert f"error: nothing answers at superlink-control = 127.0.0.1:{port} (Connection refused)" in ended.err
    assert list(Path(file.coordinator_dir).glob("weights/*")) == []
    assert ledger.renewal_need().entries == 12


@pytest.mark.processes
def test_renewal_program_stops_with_all_that_it_has_started(
    ledger: Ledger, tmp_path: Path, file: CoordinatorFile
) -> None:
    """A run is under way, at a SuperLink that takes the connection and says nothing."""
    CoordinatorFolder(file.coordinator_dir).create("test federation", ["127.0.0.1"])
    erase(ledger, 12)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        path = written(tmp_path, f'superlink-control = "{address}"\n{RUN}')
        command = own_program("fedmunkey.server.superlink.renewing", str(path))
        with Running(command, tmp_path) as program:
            silent.settimeout(PATIENCE)
            # Whatever else on this machine still tries an address that was this port before may connect as well.
            begun: list[tuple[int, str]] = []
            connections = []
            while not any("flwr" in words for _, words in begun):
                connections.append(silent.accept()[0])
                begun = descendants(program._process.pid)
            program.stop_well()
            for connection in connections:
                connection.close()

    assert any("run" in words for _, words in begun)
    assert all(gone(process) for process, _ in begun)
    assert ledger.renewal_need().entries == 12


def descendants(process: int) -> list[tuple[int, str]]:
    """Return what a process has started, and these in turn, each with its command."""
    # With -ww, as ps otherwise cuts commands at the width of the terminal that it takes to be there.
    command = ["ps", "-ww", "-eo", "pid=,ppid=,args="]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
    rows = [
        (int(pid), int(parent), words) for pid, parent, words in (line.split(None, 2) for line in listed.splitlines())
    ]
    found: list[tuple[int, str]] = []
    parents = {process}
    while more := [(pid, words) for pid, parent, words in rows if parent in parents]:
        found += more
        parents = {pid for pid, _ in more}
    return found


@pytest.mark.processes
def test_renewal_program_says_that_it_serves_and_ends_well(file: CoordinatorFile, tmp_path: Path) -> None:
    command = own_program("fedmunkey.server.superlink.renewing", str(tmp_path / "coordinator.toml"))
    file.coordinator_dir.mkdir(exist_ok=True)
    with Running(command, tmp_path) as program:
        program.expect(RENEWING_READY)
        program.stop_well()

    assert program.output.decode().startswith(f"{RENEWING_READY}{file.ledger}\n")
