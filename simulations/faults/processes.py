"""The processes of a federation, as the driver sees them: started, killed, and seen to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from common.errors import FedmunkeyError
from common.supervision import own_program

_PATIENCE = 600.0
"""Seconds that importing every program may take on a machine that has much else to do."""


class ProcessFault(FedmunkeyError):  # noqa: N818
    """A process of the driver's own did not do what the driver needs."""


@dataclass(frozen=True)
class Program:
    """What a process runs.

    Attributes
    ----------
    entry : str
        `module:function` without arguments.
    words : tuple of str
        What a person would have typed behind the program's name.
    log : Path
        Where stdout and stderr go, at the end of what is there.
    nice : int
        How far it stands back for others.
    """

    entry: str
    words: tuple[str, ...]
    log: Path
    nice: int = 0


@dataclass
class Process:
    """One process, by the number that its launcher knows it by; `asked`: it was sent a signal."""

    number: int
    launcher: Launcher
    asked: bool = False
    ended: threading.Event = field(default_factory=threading.Event)
    code: int | None = None

    def signal(self, number: int) -> None:
        """Send it a signal; one that has ended gets none."""
        self.asked = True
        self.launcher.tell({"do": "signal", "id": self.number, "signal": number})

    @property
    def killed(self) -> bool:
        """Whether it has ended by SIGKILL."""
        return self.code == -signal.SIGKILL

    def wait(self, seconds: float) -> int:
        """Return its exit code once it has ended.

        Raises
        ------
        ProcessFault
            If it has not ended by then.
        """
        if not self.ended.wait(seconds) or self.code is None:
            raise ProcessFault(f"a process has not ended within {seconds:.0f} s; see its log")
        return self.code


class Launcher:
    """Starts processes by forking one that has imported their programs; see `simulations.faults.launcher`.

    At the end of the context no process is left.

    Parameters
    ----------
    preload : sequence of str
        Modules to import first.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        self._preload = preload
        self._processes: dict[int, Process] = {}
        self._ready = threading.Event()
        self._imported = False
        self._lock = threading.Lock()
        self._parent: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _begin(self) -> None:
        self._parent = subprocess.Popen(  # noqa: S603
            own_program("simulations.faults.launcher", *self._preload),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # What this process can import, that one can as well.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
            # Ctrl-C is for the driver alone, which then ends everything in order.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name="launcher")
        self._reader.start()
        if not self._ready.wait(_PATIENCE) or not self._imported:
            raise ProcessFault("the federation's programs could not be imported; see the lines above")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._parent is None or self._parent.stdin is None:
            return
        self._parent.stdin.close()
        if not self._imported:
            # It has started nothing yet, and would read that its stdin has ended only once it has imported everything.
            self._parent.kill()
        try:
            self._parent.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._parent.kill()
            self._parent.wait(_PATIENCE)
        if self._reader is not None:
            self._reader.join(_PATIENCE)

    def start(self, program: Program, environment: Mapping[str, str] | None = None) -> Process:
        """Start a program, with some environment variables more than this process has."""
        with self._lock:
            process = Process(len(self._processes), self)
            self._processes[process.number] = process
        self.tell(
            {
                "do": "start",
                "id": process.number,
                "entry": program.entry,
                "words": program.words,
                "log": str(program.log),
                "nice": program.nice,
                "environment": dict(environment or {}),
            }
        )
        return process

    def tell(self, command: Mapping[str, Any]) -> None:
        """Have the parent of all processes do something."""
        if self._parent is None or self._parent.stdin is None:
            raise ProcessFault("the launcher has not been started")
        with self._lock:
            try:
                self._parent.stdin.write(json.dumps(command).encode() + b"\n")
                self._parent.stdin.flush()
            except (BrokenPipeError, ValueError):
                raise ProcessFault("the parent of all processes has ended; see the lines above") from None

    def _read(self) -> None:
        if self._parent is None or self._parent.stdout is None:
            return
        with self._parent.stdout as lines:
            for line in lines:
                said = json.loads(line)
                if "ready" in said:
                    self._imported = True
                    self._ready.set()
                elif "ended" in said:
                    process = self._processes[said["id"]]
                    process.code = said["ended"]
                    process.ended.set()
        self._ready.set()


def wait_until(so: Any, seconds: float, what: str, *, look: float = 0.02) -> None:
    """Wait until something is so.

    Raises
    ------
    ProcessFault
        If it is not so within some seconds.
    """
    deadline = time.monotonic() + seconds
    while not so():
        if time.monotonic() > deadline:
            raise ProcessFault(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(look)
