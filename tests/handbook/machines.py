"""Machines as folders of this one: commands typed in them, programs that go on in terminals, files handed over."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from fedmunkey.common.errors import FedmunkeyError
from fedmunkey.common.programs.bound_program import bound_command
from fedmunkey.common.programs.flower import flower_environment
from fedmunkey.simulations.programs.free_ports import free_ports
from tests.handbook.blocks import Command

_SECONDS = 600.0
"""The longest that a command may take, on a machine that has much else to do."""
_STOP_SECONDS = 60.0
_AGAIN_SECONDS = 1.0
_STANDS_FOR = re.compile(r"\b[A-Z]+-[A-Z]+\b")
_HOST = "coordinator.example.org"
_DATABASE = "postgresql://fedmunkey@localhost/fedmunkey"
_PORT = re.compile(r"\b(?P<host>127\.0\.0\.1|0\.0\.0\.0|coordinator\.example\.org):(?P<port>\d{4})\b")


class NotAsStated(FedmunkeyError):  # noqa: N818
    """A step did not do what the page says of it."""


@dataclass
class Ownership:
    """What everybody puts in for himself: the coordinator's name, ports, the database, words that stand for others."""

    database: str
    ports: dict[tuple[str, str], int] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put_in(self, text: str, machine: str) -> str:
        """Return a text of the page as it is typed at a machine."""

        def port(found: re.Match[str]) -> str:
            # 127.0.0.1 is the machine itself, and all of them share this one's.
            whose = machine if found["host"] == "127.0.0.1" else ""
            with self._lock:
                number = self.ports.setdefault((whose, found["port"]), 0) or free_ports(1)[0]
                self.ports[whose, found["port"]] = number
            return f"{found['host']}:{number}"

        text = _PORT.sub(port, text).replace(_HOST, "localhost").replace(_DATABASE, self.database)
        return _STANDS_FOR.sub(lambda found: self.words.get(found[0], found[0]), text)

    def read(self, stated: str, printed: str) -> bool:
        """Return whether a line was printed as stated, and remember what words in it stand for."""
        pattern = re.sub(r"(\\ )?\\\.\\\.\\\.(\\ )?", ".*", re.escape(" ".join(stated.split())))
        names = _STANDS_FOR.findall(stated)
        for number, name in enumerate(dict.fromkeys(names)):
            pattern = pattern.replace(re.escape(name), rf"(?P<word{number}>[\w.-]+)")
        found = re.search(pattern, " ".join(printed.split()))
        if found is None:
            return False
        with self._lock:
            self.words |= {name: found[f"word{number}"] for number, name in enumerate(dict.fromkeys(names))}
        return True


class OwnTerminal:
    """A program that goes on; its lines are kept as they come."""

    def __init__(self, typed: str, folder: Path, environment: dict[str, str]) -> None:
        self.typed = typed
        self._lines: list[str] = []
        self._more = threading.Condition()
        self._ended = False
        self._process = subprocess.Popen(  # noqa: S603 (a line of a page of this project)
            bound_command(["bash", "-c", f"exec {typed}"], grace_seconds=_STOP_SECONDS),
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, held: Callable[[str], bool]) -> bool:
        """Return whether a line comes of which something holds; False once it ends, or takes too long."""
        deadline, seen = time.monotonic() + _SECONDS, 0
        with self._more:
            while True:
                if any(held(line) for line in self._lines[seen:]):
                    return True
                seen, left = len(self._lines), deadline - time.monotonic()
                if self._ended or left <= 0:
                    return False
                self._more.wait(left)

    def said(self) -> str:
        """Return what it has printed so far."""
        with self._more:
            return "\n".join(self._lines)

    def interrupt(self) -> int:
        """Press Ctrl-C and return the exit code."""
        with_children = self._process.pid
        for child in Path(f"/proc/{with_children}/task/{with_children}/children").read_text().split():
            os.kill(int(child), signal.SIGINT)
        return self._wait()

    def close(self) -> None:
        """End it, as one that closes its window."""
        self._process.terminate()
        self._wait()

    def _wait(self) -> int:
        try:
            return self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            self._process.wait()
            raise NotAsStated(f"{self.typed} does not stop") from None
        finally:
            cast(IO[str], self._process.stdin).close()
            self._reader.join()

    def _read(self) -> None:
        with cast(IO[str], self._process.stdout) as lines:
            for line in lines:
                with self._more:
                    self._lines.append(line.rstrip("\n"))
                    self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()


class Machine:
    """A folder in which commands are typed, and the terminals that are open there."""

    def __init__(self, name: str, folder: Path, ownership: Ownership) -> None:
        self.name, self.folder = name, folder
        self._ownership = ownership
        self._open: list[OwnTerminal] = []
        folder.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MUNKEY_")}
        self._environment = {**kept, **flower_environment(folder / ".flwr"), "HOME": str(folder), "COLUMNS": "120"}

    def type(self, command: Command, named: Callable[[str], str]) -> str:
        """Type a command, and return what it printed; raises `NotAsStated` where it is not as the page says.

        `named` puts this machine's own name into a text of the page.
        """
        typed = self._ownership.put_in(named(command.typed), self.name)
        stated = [named(line) for line in command.printed]
        if left := _STANDS_FOR.findall(typed):
            raise NotAsStated(f"nothing has said what {left[0]} stands for")
        if command.own_terminal:
            return self._start(typed, stated)
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                return self._run(typed, command, stated, named)
            except NotAsStated:
                if not command.again or time.monotonic() > deadline:
                    raise
                time.sleep(_AGAIN_SECONDS)

    def _run(self, typed: str, command: Command, stated: list[str], named: Callable[[str], str]) -> str:
        try:
            ended = subprocess.run(  # noqa: S603 (a line of a page of this project)
                bound_command(["bash", "-c", typed]),
                cwd=self.folder,
                env=self._environment,
                input="".join(f"{named(answer)}\n" for answer in command.answers),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NotAsStated(f"still going after {_SECONDS:.0f} s") from None
        if ended.returncode != command.code:
            raise NotAsStated(f"exit code {ended.returncode} instead of {command.code}:\n{ended.stdout}")
        lines = iter(ended.stdout.splitlines())
        for line in stated:
            if not any(self._ownership.read(self._ownership.put_in(line, self.name), printed) for printed in lines):
                raise NotAsStated(f"does not say {line!r} here:\n{ended.stdout}")
        return ended.stdout

    def write(self, name: str, content: str) -> None:
        """Write a file of the page, as this machine's own."""
        (self.folder / name).write_text(self._ownership.put_in(content, self.name), encoding="utf-8")

    def hand_over(self, file: str, to: Machine) -> None:
        """Bring a file to another machine, under the same name."""
        try:
            shutil.copy(self.folder / file, to.folder / Path(file).name)
        except FileNotFoundError:
            raise NotAsStated(f"there is no {file} to hand over") from None

    def interrupt(self, program: str) -> str:
        """Press Ctrl-C where a program goes on, and return what it had said."""
        terminal = next((each for each in self._open if each.typed.startswith(program)), None)
        if terminal is None:
            raise NotAsStated(f"{program} does not run at {self.name}")
        self._open.remove(terminal)
        code = terminal.interrupt()
        if code:
            raise NotAsStated(f"{terminal.typed} ended with exit code {code} at Ctrl-C:\n{terminal.said()}")
        return terminal.said()

    def close(self) -> None:
        """End what still runs, the last first."""
        for terminal in reversed(self._open):
            terminal.close()
        self._open.clear()

    def _start(self, typed: str, stated: list[str]) -> str:
        terminal = OwnTerminal(typed, self.folder, self._environment)
        self._open.append(terminal)
        for line in stated:
            asked = self._ownership.put_in(line, self.name)
            if not terminal.wait_for(lambda printed, asked=asked: self._ownership.read(asked, printed)):  # type: ignore[misc]
                raise NotAsStated(f"does not say {line!r}:\n{terminal.said()}")
        return terminal.said()
