"""Memory of a process of its own."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

Task = Callable[[Any, Callable[[int], None]], int]
"""What a child does with its argument; reports progress through its second one, and returns bytes."""

_STATUS = "/proc/{}/status"


def in_child(task: Task, argument: object, progress: Callable[[int], None]) -> int:
    """Run a task, a function at the top of a module, in a new process and return what it returns.

    Its argument is pickled; `progress` is called here with every number that it reports. Raises RuntimeError if the
    child ended without an answer, for instance because memory ran out.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(there, task, argument))
    child.start()
    there.close()
    try:
        while True:
            kind, value = here.recv()
            if kind == "answer":
                return int(value)
            progress(value)
    except EOFError:
        raise RuntimeError(f"{task.__name__} ended without an answer; its error is above, if it had one") from None
    finally:
        child.join()
        here.close()


def _answer(connection: Connection, task: Task, argument: object) -> None:
    answer = task(argument, lambda done: connection.send(("progress", done)))
    connection.send(("answer", answer))


def resident_memory(process: int | None = None) -> int:
    """Return the bytes of memory that this or another process has at the moment.

    Where only this process' peak is known, that is returned, and NotImplementedError raised for another process.
    """
    status = Path(_STATUS.format(process or "self"))
    if status.exists():
        return _read(status, "VmRSS")
    if process is not None:
        raise NotImplementedError("the memory of another process is only known under Linux")
    return peak_memory()


def peak_memory() -> int:
    """Return the bytes of memory that this process has had at most."""
    status = Path(_STATUS.format("self"))
    if status.exists():
        # Not ru_maxrss: Linux hands a parent's peak on to the program that its child executes.
        return _read(status, "VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _read(status: Path, name: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1]) * 1024
