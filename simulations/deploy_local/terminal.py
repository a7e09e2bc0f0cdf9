"""Types commands as a person would, shows them with their output, and stops whatever was started."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self, cast

from fedmunkey.common.errors import FedmunkeyError
from fedmunkey.common.programs.bound_program import bound_command
from fedmunkey.common.programs.flower import flower_environment
from fedmunkey.common.programs.supervision import own_program

_PACKAGES = {"munkey-client": "client", "munkey-server": "server", "munkey-sim": "simulations"}
_SECONDS = 300.0
"""The longest that a command may take, on a machine that has much else to do."""

_STOP_SECONDS = 60.0


class StepFailed(FedmunkeyError):  # noqa: N818
    """A step of a deployment did not do what it should have."""


@dataclass(frozen=True)
class TypedCommand:
    """A command that was typed, or something else that was checked, with its exit code."""

    typed: str
    code: int
    seconds: float


class Background:
    """A program that was started and goes on, its output in a file and looked at as it comes."""

    def __init__(self, name: str, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.name = name
        self._lines: list[str] = []
        self._more = threading.Condition()
        self._ended = False
        self._process = subprocess.Popen(  # noqa: S603 (the project's own programs)
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(folder / f"{name}.log",), daemon=True)
        self._reader.start()

    def expect(self, text: str, seconds: float = _SECONDS) -> str:
        """Return the first line that holds a text, waiting for it.

        Raises `StepFailed` if the program ends without it, or does not print it in time.
        """
        deadline = time.monotonic() + seconds
        seen = 0
        with self._more:
            while True:
                for line in self._lines[seen:]:
                    if text in line:
                        return line
                seen = len(self._lines)
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    raise StepFailed(f"{self.name} does not say {text!r}; its last lines:\n{self.tail()}")
                self._more.wait(left)

    def tail(self, count: int = 15) -> str:
        """Return its last lines."""
        return "\n".join(self._lines[-count:])

    def stop(self) -> int:
        """Ask it to stop, and return its exit code; it is killed if it does not."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            return self._process.wait()

    def _read(self, log: Path) -> None:
        with cast(IO[str], self._process.stdout) as lines, log.open("w", encoding="utf-8") as kept:
            for line in lines:
                kept.write(line)
                kept.flush()
                with self._more:
                    self._lines.append(line.rstrip("\n"))
                    self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()


class Terminal:
    """A folder in which commands are typed, so that paths are short; `show` takes each line that a person sees."""

    def __init__(self, folder: Path, show: Callable[[str], object]) -> None:
        self.folder = folder
        self.steps: list[TypedCommand] = []
        self._show = show
        self._running: list[Background] = []
        self._environment = {**os.environ, **flower_environment(folder / "flower"), "COLUMNS": "110"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop what was started, the last first; raises `StepFailed` if something does not end well."""
        codes = {background.name: background.stop() for background in reversed(self._running)}
        failed = [name for name, code in codes.items() if code]
        if failed and kind is None:
            raise StepFailed(f"{failed[0]} did not stop as asked")

    def say(self, text: str) -> None:
        """Show a heading."""
        self._show(f"\n# {text}")

    def type(self, *words: object, refused: bool = False, ends: int = 0, inside: str = "") -> str:
        """Run one of this project's programs or `python` to its end, show what it prints, and return its stdout.

        It is typed in the terminal's folder, or in one `inside` of it, which is made.

        One that is to be refused must fail, and say why in one line; any other ends with the exit code `ends`. Raises
        `StepFailed` if it ends otherwise, or takes too long.
        """
        typed = shlex.join(map(str, words))
        self._show(f"{inside}$ {typed}")
        (self.folder / inside).mkdir(exist_ok=True)
        start = time.monotonic()
        try:
            ended = subprocess.run(  # noqa: S603 (the project's own programs)
                _bound_program(*words),
                cwd=self.folder / inside,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise StepFailed(f"{typed} is still going after {_SECONDS:.0f} s") from None
        self.steps.append(TypedCommand(typed, ended.returncode, round(time.monotonic() - start, 3)))
        for line in f"{ended.stdout}{ended.stderr}".splitlines():
            self._show(f"  {line}")
        if refused:
            # gRPC writes lines of its own before ours.
            if not ended.returncode or not "".join(ended.stderr.splitlines()[-1:]).startswith("error: "):
                raise StepFailed(f"{typed} should have been refused, it ended with code {ended.returncode}")
        elif ended.returncode != ends:
            raise StepFailed(f"{typed} ended with code {ended.returncode}: {ended.stderr.strip()}")
        return ended.stdout

    def start(self, name: str, *words: object) -> Background:
        """Start a program that goes on; its output is in a log file of that name."""
        typed = shlex.join(map(str, words))
        self._show(f"$ {typed} > {name}.log 2>&1 &")
        self.steps.append(TypedCommand(f"{typed} &", 0, 0.0))
        background = Background(name, _bound_program(*words), self.folder, self._environment)
        self._running.append(background)
        return background

    def check(self, what: str, so: Callable[[], bool]) -> None:
        """Show that something is so; raises `StepFailed` if it is not."""
        start = time.monotonic()
        held = so()
        self._show(f"- {what}: {'yes' if held else 'NO'}")
        self.steps.append(TypedCommand(what, 0 if held else 1, round(time.monotonic() - start, 3)))
        if not held:
            raise StepFailed(f"not so: {what}")


def program(*words: object) -> list[str]:
    """Return how a command line is run with this interpreter."""
    first, *rest = map(str, words)
    if first == "python":
        return [sys.executable, "-P", *rest]
    installed = Path(sys.executable).with_name(first)
    if installed.exists():
        return [str(installed), *rest]
    return own_program(f"fedmunkey.{_PACKAGES[first]}.cli", *rest)


def _bound_program(*words: object) -> list[str]:
    return bound_command(program(*words), grace_seconds=_STOP_SECONDS)
