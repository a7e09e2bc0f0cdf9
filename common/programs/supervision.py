"""Runs the processes of one machine: starts them in order, starts again what dies, stops all of them together.

What a child prints goes on to this process's own output, each line after the child's name. A child says itself when it
serves, by a line that holds `Child.ready`: nothing is asked over a network, and nothing is guessed from time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import IO, cast

from fedmunkey.common.errors import ProcessNotStarted
from fedmunkey.common.service.foreign_text import printable
from fedmunkey.common.service.waiting import jitter, pauses
from fedmunkey.common.stop_signals import LOOK_SECONDS

logger = logging.getLogger(__name__)

START_SECONDS = 120.0
"""How long a child may take until it says that it serves; PyTorch alone takes ten seconds on a slow disk."""

GRACE_SECONDS = 20.0
"""How long a child may take to stop before it is killed."""

_LAST_WORDS_SECONDS = 1.0

_STEADY_SECONDS = 60.0
"""A child that served for so long is started again at once when it dies."""

Say = Callable[[str, str], None]
"""Takes a child's name and a line that it has printed, without its end."""


@dataclass(frozen=True)
class Child:
    """A program that is to be kept running, in an environment that is set beside this process's own.

    Log lines call it by its name; `ready` is what a line of its output holds once it serves.
    """

    name: str
    command: Sequence[str]
    ready: str
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Running:
    """A child and its present process."""

    child: Child
    process: subprocess.Popen[str] | None = None
    started: float = 0.0
    serves: bool = False
    has_served: bool = False
    restart_at: float | None = None
    last_line: str = ""
    waits: Iterator[float] = field(default_factory=lambda: pauses(jitter()))


class Supervisor:
    """Keeps children, which start in their order and stop in the reverse one, running until it is told to stop.

    What they print goes to `say`, or else to stderr of this process. `on_ready` is called once, when all of them serve.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        say: Say | None = None,
        start_seconds: float = START_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
        on_ready: Callable[[], object] | None = None,
    ) -> None:
        self._children = [_Running(child) for child in children]
        self._say = say or print_line
        self._start_seconds = start_seconds
        self._grace_seconds = grace_seconds
        self._on_ready = on_ready
        # What has happened, as what is to be done about it in the thread of `run`.
        self._events: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._stopping = False

    def stop(self) -> None:
        """Have `run` stop all children and return; may be called from a signal handler and from any thread."""
        self._events.put(self._note_stop)

    def run(self) -> None:
        """Start the children one after the other and keep them running until `stop` is called.

        Raises `ProcessNotStarted` if a child ends, or does not serve in time, before it has served once; all others are
        stopped.
        """
        try:
            for running in self._children:
                self._start(running)
                while not running.serves and not self._stopping:
                    self._take_next()
            if not self._stopping and self._on_ready is not None:
                self._on_ready()
            while not self._stopping:
                self._take_next()
        finally:
            for running in reversed(self._children):
                self._end(running)

    def _start(self, running: _Running) -> None:
        child = running.child
        try:
            process = subprocess.Popen(  # noqa: S603 (commands are made by this project, not read from anywhere)
                child.command,
                env={**os.environ, **child.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise ProcessNotStarted(f"{child.name} cannot be started: {error}") from None
        running.process, running.started = process, time.monotonic()
        running.serves, running.restart_at = False, None
        logger.info("%s: started as process %d", child.name, process.pid)
        # What a child has started may keep its output open after it has ended, so the end is waited for by itself.
        reader = threading.Thread(target=self._read, args=(running, process), daemon=True)
        reader.start()
        threading.Thread(target=self._wait_for, args=(running, process, reader), daemon=True).start()

    def _read(self, running: _Running, process: subprocess.Popen[str]) -> None:
        waiting = True
        with cast(IO[str], process.stdout) as lines:
            for line in lines:
                text = line.rstrip("\n")
                if text.strip():
                    running.last_line = text.strip()
                self._say(running.child.name, text)
                if waiting and running.child.ready in text:
                    waiting = False
                    self._events.put(partial(self._note_serving, running, process))

    def _wait_for(self, running: _Running, process: subprocess.Popen[str], reader: threading.Thread) -> None:
        code = process.wait()
        # Its last words say why; what it has started may go on talking.
        reader.join(_LAST_WORDS_SECONDS)
        self._events.put(partial(self._note_end, running, process, code))

    def _take_next(self) -> None:
        """Wait for the next thing to happen, or to be due, and do what follows from it."""
        times = [due for running in self._children if (due := self._due(running)) is not None]
        try:
            left = max(0.0, min(times) - time.monotonic()) if times else LOOK_SECONDS
            event = self._events.get(timeout=min(left, LOOK_SECONDS))
        except Empty:
            event = self._do_what_is_due
        event()

    def _due(self, running: _Running) -> float | None:
        """Return when something must be done about a child that says nothing."""
        if running.restart_at is not None:
            return running.restart_at
        if running.process is not None and not running.serves:
            return running.started + self._start_seconds
        return None

    def _do_what_is_due(self) -> None:
        moment = time.monotonic()
        for running in self._children:
            due = self._due(running)
            if due is None or moment < due:
                continue
            if running.restart_at is not None:
                self._start(running)
            elif running.process is not None:
                logger.error("%s: does not serve after %.0f s", running.child.name, self._start_seconds)
                _kill_group(running.process)
                running.last_line = f"it did not serve within {self._start_seconds:.0f} s"
                running.started = moment

    def _note_stop(self) -> None:
        self._stopping = True

    def _note_serving(self, running: _Running, process: subprocess.Popen[str]) -> None:
        # One that has ended meanwhile may have said so before.
        if running.process is process:
            running.serves = running.has_served = True
            logger.info("%s: serves after %.1f s", running.child.name, time.monotonic() - running.started)

    def _note_end(self, running: _Running, process: subprocess.Popen[str], code: int) -> None:
        name, lasted = running.child.name, time.monotonic() - running.started
        _kill_group(process)
        running.process, served, running.serves = None, running.serves, False
        if not running.has_served:
            raise ProcessNotStarted(f"{name} did not start, it {_ending(code)}: {running.last_line}")
        if served and lasted > _STEADY_SECONDS:
            running.waits = pauses(jitter())
        pause = next(running.waits)
        running.restart_at = time.monotonic() + pause
        logger.warning("%s: %s after %.1f s; starting it again in %.1f s", name, _ending(code), lasted, pause)

    def _end(self, running: _Running) -> None:
        process = running.process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(self._grace_seconds)
        except subprocess.TimeoutExpired:
            logger.warning("%s: did not stop within %.0f s and is killed", running.child.name, self._grace_seconds)
        _kill_group(process)
        process.wait()
        logger.info("%s: stopped", running.child.name)


def own_program(module: str, *words: str) -> list[str]:
    """Return the command that runs the `main` of one of this project's modules with this interpreter.

    With `-P`, no file of the working directory is taken for a module, whatever its name is.
    """
    return [sys.executable, "-P", "-c", f"from {module} import main; main()", *words]


def print_line(name: str, line: str) -> None:
    """Print a child's line on stderr: after its name, or as it is where it is a JSON object."""
    text = printable(line)
    sys.stderr.write(f"{text}\n" if line.startswith("{") else f"{name} | {text}\n")
    sys.stderr.flush()


def tell_systemd_ready() -> None:
    """Tell systemd that a unit of `Type=notify` is up; does nothing where systemd has not started this process."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as messages:
        messages.sendto(b"READY=1", f"\0{address[1:]}" if address.startswith("@") else address)


def _ending(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def _kill_group(process: subprocess.Popen[str]) -> None:
    """End what a child has started in its group, and the child if it is still there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
