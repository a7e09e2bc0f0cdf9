"""Programs and folders that do not outlive the process that made them, however that ends, SIGKILL included.

A program is started through this file, run by its path with nothing imported but the standard library. It is parent of
the program and, on Linux, of whatever that leaves behind, in any session (`PR_SET_CHILD_SUBREAPER`): it has no child
left only once nothing is left that the program has started. No process is looked for by name, and none can be mistaken:
the id of a child is not given away before its parent has taken note of its end.

Where there is no /proc, only the program itself and its process group are ended.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_LOOK_SECONDS = 0.2
"""How often it is looked whether the starter is still there."""

_ORPHAN_SECONDS = 5.0
"""The longest that a program may take to stop once its starter is gone."""

_SETTLE_SECONDS = 0.005
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SET_PARENT_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36


def bound_command(
    command: Sequence[str], *, grace_seconds: float = 0.0, folder: Path | None = None, within: Path | None = None
) -> list[str]:
    """Return what runs a command such that it ends with this process, or at SIGTERM, with all that it has started.

    Its exit code is the command's, and it ends by the signal that has ended that.

    Parameters
    ----------
    grace_seconds
        How long the command may take after SIGTERM before everything is killed; 0 kills at once. It is sent SIGTERM,
        and given some seconds of them, where this process has ended as well.
    folder
        Made before the command starts, for its owner alone, and removed once nothing is left of it.
    within
        A folder that another such program owns; whoever of them ends last removes it where this process has ended.
    """
    options = [f"--parent={os.getpid()}", f"--grace={grace_seconds}"]
    options += [] if folder is None else [f"--folder={folder}"]
    options += [] if within is None else [f"--within={within}"]
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), *options, "--", *command]


@contextlib.contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Make a folder for temporary files that is gone when the context, or this process, has ended."""
    folder = Path(tempfile.gettempdir()) / f"{prefix}{os.urandom(6).hex()}"
    keeper = subprocess.Popen(  # noqa: S603 (this file)
        bound_command([], folder=folder), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        with keeper:
            if keeper.stdout is not None:
                keeper.stdout.readline()
            yield folder
            keeper.terminate()
    finally:
        keeper.terminate()
        keeper.wait()


@dataclass(frozen=True)
class _Bounds:
    """How the program is bound."""

    parent: int
    grace_seconds: float
    folder: Path | None
    within: Path | None

    @property
    def orphaned(self) -> bool:
        """Whether the starter has ended."""
        return os.getppid() != self.parent


def main() -> None:
    """Run a command as `bound_command` says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--grace", type=float, required=True)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--within", type=Path)
    parser.add_argument("command", nargs="*")
    asked = parser.parse_args()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_STOP_SIGNALS, signal.SIGCHLD})
    _control_process(_SET_CHILD_SUBREAPER, 1)
    status = _run(_Bounds(asked.parent, asked.grace, asked.folder, asked.within), asked.command, before)
    if status is not None and os.WIFSIGNALED(status):
        _end_by(os.WTERMSIG(status), before)
    sys.exit(0 if status is None else os.waitstatus_to_exitcode(status))


def _run(bounds: _Bounds, command: list[str], mask: set[int | signal.Signals]) -> int | None:
    """Return the status with which the program ended; None where there is none, or it was killed here."""
    if bounds.orphaned:
        return None
    status, program = None, 0
    try:
        if bounds.folder is not None:
            bounds.folder.mkdir(mode=0o700, parents=True)
        if command:
            program = _start(command, mask)
        else:
            sys.stdout.write("kept\n")
            sys.stdout.flush()
        status = _wait(bounds, program)
        if program and status is None and bounds.grace_seconds:
            longest = _ORPHAN_SECONDS if bounds.orphaned else bounds.grace_seconds
            status = _end_gracefully(program, min(longest, bounds.grace_seconds))
    finally:
        _end_children(program)
        if bounds.folder is not None:
            shutil.rmtree(bounds.folder, ignore_errors=True)
        if bounds.within is not None and bounds.orphaned:
            shutil.rmtree(bounds.within, ignore_errors=True)
    return status


def _start(command: list[str], mask: set[int | signal.Signals]) -> int:
    parent = os.getpid()
    process = os.fork()
    if process:
        return process
    try:
        # The program at least ends where this process is killed.
        _control_process(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if os.getppid() == parent:
            os.execvp(command[0], command)  # noqa: S606 (the command of whoever started this)
    except OSError as error:
        os.write(2, f"{command[0]} cannot be started: {error}\n".encode())
    os._exit(127)


def _wait(bounds: _Bounds, program: int) -> int | None:
    """Return the program's status once it ends; None once it is to be ended."""
    while True:
        for process, status in _ended_children():
            if process == program:
                return status
        if bounds.orphaned:
            return None
        came = signal.sigtimedwait((*_STOP_SIGNALS, signal.SIGCHLD), _LOOK_SECONDS)
        if came is not None and came.si_signo != signal.SIGCHLD:
            return None


def _end_gracefully(program: int, seconds: float) -> int | None:
    os.kill(program, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for process, status in _ended_children():
            if process == program:
                return status
        signal.sigtimedwait((signal.SIGCHLD,), _LOOK_SECONDS)
    return None


def _ended_children() -> Iterator[tuple[int, int]]:
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            yield found


def _end_children(program: int) -> None:
    """Kill children until there are none; what one of them leaves behind becomes a child in turn."""
    while True:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            for child in _children() or [program] * bool(program):
                os.kill(child, signal.SIGKILL)
        list(_ended_children())
        try:
            if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                time.sleep(_SETTLE_SECONDS)
        except ChildProcessError:
            return


def _children() -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        # It may end while we look.
        with contextlib.suppress(OSError):
            if int((process / "stat").read_bytes().rpartition(b")")[2].split()[1]) == os.getpid():
                found.append(int(process.name))
    return found


def _control_process(option: int, value: int) -> None:
    """Call `prctl`, where there is one."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _end_by(number: int, mask: set[int | signal.Signals]) -> None:
    with contextlib.suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    main()
