"""The processes of a federation, as the driver sees them: started, killed, and seen to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Self, cast

from fedmunkey.common.errors import FedmunkeyError
from fedmunkey.common.programs.supervision import own_program

_PATIENCE = 600.0
"""Seconds that importing every program may take on a machine that has much else to do."""

_LOOK_SECONDS = 0.02


class ProcessFault(FedmunkeyError):  # noqa: N818
    """A process of the driver's own did not do what the driver needs."""


@dataclass(frozen=True)
class Program:
    """What a process runs: `module:function`, and the words that a person would have typed behind the program's name.

    What it says goes to the end of its log; `nice` is how far it stands back for others.
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
        """Return its exit code once it has ended; raises `ProcessFault` if it does not within some seconds."""
        if not self.ended.wait(seconds) or self.code is None:
            raise ProcessFault(f"a process has not ended within {seconds:.0f} s; see its log")
        return self.code


class Launcher:
    """Starts processes by forking one that has imported some modules first; see `simulations.faults.launcher`.

    At the end of the context no process is left.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        self._preload = preload
        self._processes: dict[int, Process] = {}
        self._ready = threading.Event()
        self._imported = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._parent = subprocess.Popen(  # noqa: S603
            own_program("fedmunkey.simulations.faults.launcher", *self._preload),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # What this process can import, that one can as well.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
            # Ctrl-C is for the driver alone, which then ends everything in order.
            start_new_session=True,
        )
        self._commands, said = cast(IO[bytes], self._parent.stdin), cast(IO[bytes], self._parent.stdout)
        self._reader = threading.Thread(target=self._read, args=(said,), name="launcher")
        self._reader.start()
        try:
            if not self._ready.wait(_PATIENCE) or not self._imported:
                raise ProcessFault("the federation's programs could not be imported; see the lines above")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._commands.close()
        if not self._imported:
            # It has started nothing yet, and would read that its stdin has ended only once it has imported everything.
            self._parent.kill()
        try:
            self._parent.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._parent.kill()
            self._parent.wait(_PATIENCE)
        self._reader.join(_PATIENCE)

    def start(self, program: Program, environment: Mapping[str, str] | None = None) -> Process:
        """Start a program, with some environment variables more than this process has."""
        with self._lock:
            process = Process(len(self._processes), self)
            self._processes[process.number] = process
        about = {**asdict(program), "log": str(program.log), "environment": dict(environment or {})}
        self.tell({"do": "start", "id": process.number, **about})
        return process

    def tell(self, command: Mapping[str, Any]) -> None:
        """Have the parent of all processes do something."""
        with self._lock:
            try:
                self._commands.write(json.dumps(command).encode() + b"\n")
                self._commands.flush()
            except (BrokenPipeError, ValueError):
                raise ProcessFault("the parent of all processes has ended; see the lines above") from None

    def _read(self, lines: IO[bytes]) -> None:
        with lines:
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


def wait_until(so: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until something is so; raises `ProcessFault` if it is not within some seconds."""
    deadline = time.monotonic() + seconds
    while not so():
        if time.monotonic() > deadline:
            raise ProcessFault(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(_LOOK_SECONDS)
