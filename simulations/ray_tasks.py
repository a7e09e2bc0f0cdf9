"""Running independent pieces of work on all cores through Ray."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from fedmunkey.common.errors import FedmunkeyError

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_tasks(
    work: Callable[..., Result],
    tasks: Sequence[Task],
    arguments: Callable[[Task], tuple[Any, ...]],
    *,
    cores: int,
    done: Callable[[Task, Result], None],
) -> None:
    """Run tasks, as many at a time as there are cores; a cluster that `RAY_ADDRESS` names is used as it is.

    Parameters
    ----------
    work : callable
        Runs in another process, with one core.
    tasks : sequence
        In the order in which they are begun.
    arguments : callable
        Returns what `work` is called with for a task. An argument that several tasks share is sent once.
    cores : int
        Of this machine.
    done : callable
        Called in this process with each task and its result, in the order in which they end.

    Raises
    ------
    FedmunkeyError
        As `work` raised it in the other process; tasks that have not ended then are given up.
    """
    if not tasks:
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Without it, Ray warns of a change to come for tasks that ask for no accelerator.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray takes seconds to import.
    import ray

    own: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": cores, "include_dashboard": False}
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **own)
    try:
        held: dict[int, tuple[Any, Any]] = {}

        def hold(value: Any) -> Any:
            # The value is kept as well, since Python gives the identity of one that is gone to another.
            if id(value) not in held:
                held[id(value)] = value, ray.put(value)
            return held[id(value)][1]

        remote = ray.remote(num_cpus=1, max_retries=1)(work)
        running = {remote.remote(*map(hold, arguments(task))): task for task in tasks}
        while running:
            (ready, *_), _ = ray.wait(list(running), num_returns=1)
            try:
                result = ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                # Ray's own message is the other process's traceback.
                raise (error.cause if isinstance(error.cause, FedmunkeyError) else error) from None
            done(running.pop(ready), result)
    finally:
        ray.shutdown()
