"""Running independent pieces of work on all cores, in processes that end with this one."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from fedmunkey.common.errors import FedmunkeyError

Task = TypeVar("Task")
Result = TypeVar("Result")


class TaskLost(FedmunkeyError):  # noqa: N818
    """A process ended before its task, because somebody or the system killed it."""


def run_tasks(
    work: Callable[..., Result],
    tasks: Sequence[Task],
    arguments: Callable[[Task], tuple[Any, ...]],
    *,
    cores: int,
    done: Callable[[Task, Result], None],
) -> None:
    """Run tasks in other processes, in their order and as many at a time as there are cores.

    `arguments` returns what `work` is called with for a task, and `done` is called in this process with each task and
    its result, in the order in which they end. What `work` raises is raised here, and tasks that have not ended then
    are given up; so they are, with `TaskLost`, where a process ends without a result.
    """
    if not tasks:
        return
    context = multiprocessing.get_context("spawn")
    held, lifeline = context.Pipe(duplex=False)
    count = min(cores, len(tasks))
    with (
        held,
        lifeline,
        ProcessPoolExecutor(max_workers=count, mp_context=context, initializer=_end_with, initargs=(held,)) as pool,
    ):
        try:
            running = {pool.submit(work, *arguments(task)): task for task in tasks}
            for future in as_completed(running):
                done(running[future], future.result())
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            lifeline.close()
            if isinstance(error, BrokenProcessPool):
                raise TaskLost(
                    "a process was killed while it computed; if memory was short, use fewer --cores"
                ) from None
            raise


def _end_with(held: Connection) -> None:
    """End this process when the other end of a connection is closed, as it is where the one that holds it is killed."""
    # Ctrl-C reaches all processes of a terminal, and only the first has something to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end() -> None:
        with contextlib.suppress(EOFError, OSError):
            held.recv_bytes()
        os._exit(1)

    threading.Thread(target=end, name="end with parent", daemon=True).start()
