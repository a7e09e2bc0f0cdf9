"""Nothing of a program, and no folder of it, is left once the process that started it has ended, however that ended."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmunkey.common.programs.bound_program import bound_command, temporary_folder
from tests.processes import gone

SECONDS = 180.0
"""The longest that any step may take, on a machine that has much else to do."""

pytestmark = pytest.mark.processes

# A program that starts one that starts another in a session of its own, and both outlive it where nobody looks.
FAMILY = """
import os, subprocess, sys, time
inner = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
start = f"subprocess.Popen([sys.executable, '-c', {inner!r}], start_new_session=True)"
middle = f"import os, subprocess, sys, time; print(os.getpid(), flush=True); {start}; time.sleep(600)"
subprocess.Popen([sys.executable, "-c", middle], start_new_session=True)
print(os.getpid(), flush=True)
if "leave" not in sys.argv: time.sleep(600)
time.sleep(0.5)
"""
STARTER = """
import subprocess, sys, time
from pathlib import Path
from fedmunkey.common.programs.bound_program import bound_command, temporary_folder
with temporary_folder("kept-") as folder:
    print(folder, flush=True)
    shared = Path(sys.argv[2])
    subprocess.Popen(bound_command([sys.executable, "-c", sys.argv[1]], folder=shared))
    writes = ["sh", "-c", "while true; do : > $0; sleep 0.01; done 2>/dev/null", str(shared / "file")]
    subprocess.Popen(bound_command(writes, within=shared))
    time.sleep(600)
"""


@contextlib.contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)  # noqa: S603
    try:
        with process:
            yield process
    finally:
        process.kill()


def numbers(process: subprocess.Popen[str], count: int) -> list[int]:
    assert process.stdout is not None
    return [int(process.stdout.readline()) for _ in range(count)]


def is_removed(folder: Path) -> bool:
    deadline = time.monotonic() + SECONDS
    while folder.exists() and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    return not folder.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_starter_leaves_no_descendant_and_no_folder(number: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    with started([sys.executable, "-c", STARTER, FAMILY, str(folder)]) as starter:
        assert starter.stdout is not None
        kept = Path(starter.stdout.readline().strip())
        family = numbers(starter, 3)
        there = folder.is_dir(), kept.is_dir()

        starter.send_signal(number)

        assert there == (True, True)
        assert all(gone(process) for process in family)
        assert is_removed(folder)
        assert is_removed(kept)


def test_what_a_program_leaves_behind_ends_before_its_own_exit_is_told(tmp_path: Path) -> None:
    with started(bound_command([sys.executable, "-c", FAMILY, "leave"], folder=tmp_path / "files")) as bound:
        family = numbers(bound, 3)
        code = bound.wait(SECONDS)

    assert code == 0
    assert not any(Path(f"/proc/{process}").exists() for process in family)
    assert not (tmp_path / "files").exists()


def test_at_sigterm_everything_ends_and_a_folder_of_others_stays(tmp_path: Path) -> None:
    with started(bound_command([sys.executable, "-c", FAMILY], within=tmp_path)) as bound:
        family = numbers(bound, 3)
        bound.terminate()
        bound.wait(SECONDS)

    assert not any(Path(f"/proc/{process}").exists() for process in family)
    assert tmp_path.exists()


def test_with_grace_a_program_may_stop_as_it_does_alone() -> None:
    stops = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(7)); print(1, flush=True); time.sleep(600)"
    with started(bound_command([sys.executable, "-c", stops], grace_seconds=SECONDS)) as bound:
        numbers(bound, 1)
        bound.terminate()

        assert bound.wait(SECONDS) == 7


def test_a_program_ends_with_the_one_that_binds_it() -> None:
    told = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    with started(bound_command([sys.executable, "-c", told])) as bound:
        (program,) = numbers(bound, 1)
        bound.kill()

        assert gone(program)


@pytest.mark.parametrize(("command", "code"), [("exit 3", 3), ("kill -9 $$", -signal.SIGKILL)])
def test_exit_code_is_the_programs(command: str, code: int) -> None:
    assert subprocess.run(bound_command(["sh", "-c", command])).returncode == code  # noqa: S603


def test_program_that_is_not_there_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    assert subprocess.run(bound_command(["no-such-program"])).returncode == 127  # noqa: S603
    assert capfd.readouterr().err.startswith("no-such-program cannot be started: ")


def test_temporary_folder_is_the_owners_alone_and_gone_at_the_end() -> None:
    with temporary_folder("munkey-test-") as folder:
        (folder / "file").write_text("")
        mode = folder.stat().st_mode & 0o777

    assert mode == 0o700
    assert not folder.exists()
