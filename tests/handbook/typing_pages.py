"""A page typed from its first step to its last."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from secrets import token_hex
from urllib.parse import urlsplit

import psycopg

from tests.handbook.blocks import Action, Command, HandedOver, Interrupted, Step, Written, steps_of
from tests.handbook.hospital_files import write_hospital_files
from tests.handbook.machines import Machine, NotAsStated, Ownership
from tests.server.databases import POSTGRESQL

_LAST_LINES = 5

Show = Callable[[str], None]


@dataclass
class PageTyped:
    """How many commands were typed, how many statements about them held, and what was not as the page says."""

    commands: int = 0
    statements: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


class Typist:
    """Does the steps of a page in a folder; machines are made when they are first named."""

    def __init__(self, folder: Path, ownership: Ownership, show: Show, *, verbose: bool) -> None:
        self._folder, self._ownership, self._show, self._verbose = folder, ownership, show, verbose
        self._machines: dict[str, Machine] = {}
        self.typed = PageTyped()

    def do(self, page: str, step: Step) -> None:
        """Do a step at all of its machines at once; what is not as stated is kept among the faults."""
        machines = [self._machine(name) for name in step.machines]
        with ThreadPoolExecutor(len(machines)) as threads:
            done = [
                threads.submit(self._do_at, machine, step.action, partial(_own, step.machines[0], machine.name))
                for machine in machines
            ]
        for machine, each in zip(machines, done, strict=True):
            try:
                each.result()
            except NotAsStated as error:
                self.typed.faults.append(f"{page}, line {step.line}, at {machine.name}: {error}")
                self._show(f"  NOT AS STATED {self.typed.faults[-1]}")

    def close(self) -> None:
        """End what still runs at any machine."""
        for machine in reversed(self._machines.values()):
            machine.close()

    def _do_at(self, machine: Machine, action: Action, named: Callable[[str], str]) -> None:
        begun, printed = time.monotonic(), ""
        match action:
            case Command():
                printed = machine.type(action, named)
                self.typed.commands += 1
                self.typed.statements += len(action.printed) + 1
            case Written():
                machine.write(action.name, named(action.content))
            case HandedOver():
                for name in action.to:
                    for file in action.files:
                        machine.hand_over(_own(action.to[0], name, named(file)), self._machine(name))
            case Interrupted():
                printed = "\n".join(machine.interrupt(action.program).splitlines()[-_LAST_LINES:])
        said = "".join(f"\n    {line}" for line in printed.splitlines()) if self._verbose else ""
        self._show(f"{machine.name} {time.monotonic() - begun:5.1f} s  {_shown(action, named)}{said}")

    def _machine(self, name: str) -> Machine:
        if name not in self._machines:
            self._machines[name] = Machine(name, self._folder / name, self._ownership)
            if name.startswith("hospital"):
                write_hospital_files(self._folder / name, name)
        return self._machines[name]


def type_page(page: Path, ledger: str, folder: Path, show: Show, *, verbose: bool = False) -> PageTyped:
    """Type a page in an empty folder, with the ledger in SQLite or PostgreSQL."""
    begun = time.monotonic()
    steps = [step for step in steps_of(page) if step.ledger in ("", ledger)]
    with _database(ledger) as database:
        typist = Typist(folder, Ownership(database), show, verbose=verbose)
        try:
            for step in steps:
                typist.do(page.name, step)
        finally:
            typist.close()
    typist.typed.seconds = time.monotonic() - begun
    return typist.typed


@contextlib.contextmanager
def _database(ledger: str) -> Iterator[str]:
    """Make an empty database for a ledger that is to be in PostgreSQL, and return its URL."""
    if ledger != "PostgreSQL":
        yield ""
        return
    name = f"munkey_handbook_{token_hex(4)}"
    with psycopg.connect(POSTGRESQL, autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}"'.encode())
        try:
            yield urlsplit(POSTGRESQL)._replace(path=f"/{name}").geturl()
        finally:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def _own(first: str, own: str, text: str) -> str:
    """Return what stands for the first machine as another says it of itself."""
    return text.replace(first, own)


def _shown(action: Action, named: Callable[[str], str]) -> str:
    match action:
        case Command():
            return f"$ {named(action.typed)}" + (" &" if action.own_terminal else "")
        case Written():
            return f"writes {action.name}"
        case HandedOver():
            return f"hands over {' '.join(action.files)} to {', '.join(action.to)}"
        case Interrupted():
            return f"Ctrl-C: {action.program}"
