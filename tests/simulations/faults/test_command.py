"""`munkey-sim faults` as a person types it, on real processes; and that it can fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from fedmunkey.common.errors import EXIT_CODE
from fedmunkey.simulations.cli import main
from fedmunkey.simulations.faults import driver
from fedmunkey.simulations.faults.driver import FaultRun, run
from fedmunkey.simulations.faults.injections import INJECTIONS
from fedmunkey.simulations.faults.invariants import BrokenPromises
from fedmunkey.simulations.faults.processes import Launcher, wait_until
from fedmunkey.simulations.faults.restorations import RESTORATIONS
from fedmunkey.simulations.faults.running_federation import PRELOAD
from tests.patience import PATIENCE
from tests.server.databases import postgresql_database

ROOT = Path(__file__).parents[3]
Typed = Callable[..., tuple[int, str, str]]
DELETIONS = int(os.environ.get("MUNKEY_DELETIONS", "80"))
"""Few, but every kind of fault happens."""


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher(PRELOAD) as launcher:
        yield launcher


@pytest.fixture
def _imported_once(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every run of these tests start its processes from programs that were imported once."""
    monkeypatch.setattr(driver, "Launcher", lambda _preload: nullcontext(launcher))


ALONE = """
from fedmunkey.common.programs import command_line
from fedmunkey.simulations.faults import command, driver

driver.PRELOAD = (
    "fedmunkey.client.cli",
    "fedmunkey.client.commands.orders",
    "fedmunkey.simulations.faults.timed_programs",
)
app = command_line.application("Without the other commands, and without importing what training needs.")
app.command()(command.faults)
command_line.run(app)
"""


@pytest.mark.processes
@pytest.mark.usefixtures("_imported_once")
def test_every_promise_is_kept_under_faults(typed: Typed, tmp_path: Path) -> None:
    sizes = ["--deletions", DELETIONS, "--kills", DELETIONS // 10, "--seed", 1]

    code, out, said = typed(main, "munkey-sim", "faults", *sizes, "--output", tmp_path / "run", "--json")

    assert out, said
    found = json.loads(out)
    assert (code, found["broken"]) == (0, [])
    assert {name: found[name] for name in BrokenPromises().counts()} == BrokenPromises().counts()
    # One more was made while a site's key store was damaged.
    assert found["requests"] == {"completed": DELETIONS + 1}
    assert found["kills"]["carried_out"] == DELETIONS // 10
    kinds = {kind.__name__ for kind in (*INJECTIONS, *RESTORATIONS)}
    assert found["injected"].keys() == {*kinds, "damage_store", "let_time_pass"}
    assert found["rounds"] >= 2
    assert json.loads((tmp_path / "run" / "report.json").read_text()) == found
    assert not (tmp_path / "run" / "federation").exists()


@pytest.mark.processes
@pytest.mark.usefixtures("_imported_once")
def test_every_promise_is_kept_by_two_services_on_one_postgresql(tmp_path: Path) -> None:
    with postgresql_database() as database:
        # A schema within that one's database.
        outcome = run(FaultRun(24, 4, 2, seed=1, folder=tmp_path, database=database), lambda _more, _what: None)

    assert outcome.findings.broken == []
    assert outcome.findings.clean
    assert outcome.findings.states == {"completed": 25}
    assert outcome.kills.total() == 4
    assert outcome.injections["lock_ledger"] == 1


@pytest.mark.processes
@pytest.mark.usefixtures("_imported_once")
def test_agent_that_answers_before_it_deletes_is_found_out(tmp_path: Path) -> None:
    entry = "tests.simulations.faults.lying_agent:main"

    outcome = run(FaultRun(6, 0, 1, seed=1, folder=tmp_path, agent_entry=entry), lambda _more, _what: None)

    assert not outcome.findings.clean
    # Its own receipts convince it after a restoration; the model, they do not.
    assert any("was answered erased (999999 records" in line for line in outcome.findings.broken), (
        outcome.findings.broken
    )


@pytest.mark.processes
def test_interrupted_run_leaves_no_process(tmp_path: Path) -> None:
    words = ["--deletions", "300", "--kills", "0", "--sites", "1", "--output", str(tmp_path / "run")]
    interrupted = subprocess.Popen([sys.executable, "-c", ALONE, *words], cwd=ROOT, stderr=subprocess.PIPE)  # noqa: S603
    try:
        log = tmp_path / "run" / "federation" / "server.log"
        wait_until(lambda: log.exists() or interrupted.poll() is not None, PATIENCE, "the first process")
        started = running_on(tmp_path)
        interrupted.send_signal(signal.SIGINT)
        _, said = interrupted.communicate(timeout=PATIENCE)
    finally:
        interrupted.kill()
        interrupted.wait(PATIENCE)

    assert interrupted.returncode == 130, said.decode()
    assert started
    assert not running_on(tmp_path)


def running_on(folder: Path) -> set[int]:
    """Return the processes that have a file below a folder open."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            files = [str(file.readlink()) for file in (process / "fd").iterdir()]
        except OSError:
            continue
        if int(process.name) != os.getpid() and any(file.startswith(str(folder)) for file in files):
            found.add(int(process.name))
    return found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--deletions", "0"], "--deletions"),
        (["--kills", "-1"], "--kills"),
        (["--sites", "0"], "--sites"),
        (["--output", "FULL"], "not an empty folder"),
        (["--database", "ledger.sqlite"], "--database takes postgresql://user@host/database"),
        (["--database", "postgresql://root@127.0.0.1:1/nowhere"], "--database cannot be reached ("),
    ],
)
def test_mistake_is_one_line_and_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, typed: Typed, tmp_path: Path, words: list[str], message: str
) -> None:
    (tmp_path / "FULL").mkdir()
    (tmp_path / "FULL" / "file").touch()
    monkeypatch.chdir(tmp_path)

    code, _, said = typed(main, "munkey-sim", "faults", *words)

    assert code == EXIT_CODE
    assert message in said
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["FULL"]
