from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmunkey.common.failpoints import VARIABLE, Act, Action, Failpoint, FailpointPlan, hit
from fedmunkey.simulations.faults.processes import Launcher, ProcessFault, Program, wait_until
from tests.patience import PATIENCE

pytestmark = pytest.mark.processes

HERE = "tests.simulations.faults.test_processes"


def greet() -> None:
    sys.stdout.write(f"{sys.argv[1:]} {os.environ['GREETING']}\n")


def end_with_seven() -> None:
    sys.exit(7)


def raise_an_error() -> None:
    raise ValueError("what went wrong")


def come_by_a_failpoint() -> None:
    hit(Failpoint.TRAIN_AFTER_STEP)


def wait() -> None:
    time.sleep(10 * PATIENCE)


def start_a_process_and_wait() -> None:
    """Be a driver that is killed: start a process that would never end, and write its number down."""
    log = Path(sys.argv[1])
    with Launcher([HERE]) as launcher:
        launcher.start(Program(f"{HERE}:write_number_and_wait", (str(log),), log.with_suffix(".log")))
        time.sleep(10 * PATIENCE)


def write_number_and_wait() -> None:
    aside = Path(f"{sys.argv[1]}.aside")
    aside.write_text(str(os.getpid()))
    aside.rename(sys.argv[1])
    time.sleep(10 * PATIENCE)


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher([HERE]) as launcher:
        yield launcher


def test_program_gets_its_words_and_environment_and_ends(launcher: Launcher, tmp_path: Path) -> None:
    log = tmp_path / "log"

    process = launcher.start(Program(f"{HERE}:greet", ("one", "two"), log), {"GREETING": "hello"})

    assert process.wait(PATIENCE) == 0
    assert log.read_text() == "['one', 'two'] hello\n"
    assert not process.killed


def test_program_that_arms_nothing_itself_obeys_its_failpoints(launcher: Launcher, tmp_path: Path) -> None:
    program = Program(f"{HERE}:come_by_a_failpoint", (), tmp_path / "log")

    armed = launcher.start(program, {VARIABLE: str(FailpointPlan({Failpoint.TRAIN_AFTER_STEP: Action(Act.KILL)}))})
    other = launcher.start(program)

    assert armed.wait(PATIENCE) == -signal.SIGKILL
    assert other.wait(PATIENCE) == 0


@pytest.mark.parametrize(("entry", "code", "said"), [("end_with_seven", 7, ""), ("raise_an_error", 1, "went wrong")])
def test_exit_code_and_errors_are_those_of_the_program(
    launcher: Launcher, tmp_path: Path, entry: str, code: int, said: str
) -> None:
    process = launcher.start(Program(f"{HERE}:{entry}", (), tmp_path / "log"))

    assert process.wait(PATIENCE) == code
    assert said in (tmp_path / "log").read_text()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_signalled_process_ends_by_it(launcher: Launcher, tmp_path: Path, number: signal.Signals) -> None:
    process = launcher.start(Program(f"{HERE}:wait", (), tmp_path / "log"))

    process.signal(number)

    assert process.wait(PATIENCE) == -number
    assert process.killed == (number == signal.SIGKILL)


def test_process_that_does_not_end_is_reported(launcher: Launcher, tmp_path: Path) -> None:
    process = launcher.start(Program(f"{HERE}:wait", (), tmp_path / "log"))

    with pytest.raises(ProcessFault, match="not ended within 0 s"):
        process.wait(0.01)
    process.signal(signal.SIGKILL)


def test_no_process_outlives_the_context(tmp_path: Path) -> None:
    number = tmp_path / "number"
    with Launcher([HERE]) as launcher:
        launcher.start(Program(f"{HERE}:write_number_and_wait", (str(number),), tmp_path / "log"))
        wait_until(number.exists, PATIENCE, "its start")

    assert not is_running(int(number.read_text()))


def test_no_process_outlives_a_driver_that_is_killed(tmp_path: Path) -> None:
    number = tmp_path / "number"
    program = f"import sys; from {HERE} import start_a_process_and_wait; start_a_process_and_wait()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    driver = subprocess.Popen([sys.executable, "-c", program, number], env=environment)  # noqa: S603
    try:
        wait_until(number.exists, PATIENCE, "its start")
    finally:
        driver.kill()
        driver.wait(PATIENCE)

    wait_until(lambda: not is_running(int(number.read_text())), PATIENCE, "its end")


def test_programs_that_cannot_be_imported_are_reported() -> None:
    with pytest.raises(ProcessFault, match="could not be imported"), Launcher(["no.such.module"]):
        pass


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
