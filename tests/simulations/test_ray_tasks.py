"""Pieces of work on all cores: each runs once, and no process is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.simulations.ray_tasks import run_tasks

_TASKS = 12
_LARGE = 10_000
_SHARED = ["sent", "once"]


def describe(number: int, shared: list[str], others: tuple[int, ...]) -> list[Any]:
    """Return what was given, and in which process."""
    return [number, shared, list(others), os.getpid()]


def refuse(number: int) -> None:
    """Raise what a person can put right."""
    raise InvalidDeletion(f"{number} cannot be done; choose another")


def report() -> None:
    """Run tasks, then one that is refused; print what came of them as a line of JSON and wait for the end of stdin."""
    results: list[tuple[int, list[Any]]] = []
    # Arguments that are made on the way and gone at once must not be taken for one another.
    run_tasks(
        describe,
        range(_TASKS),
        lambda task: (task * _LARGE, _SHARED, (task, task + 1)),
        cores=2,
        done=lambda task, result: results.append((task, result)),
    )
    try:
        run_tasks(refuse, [13], lambda task: (task,), cores=2, done=lambda *_: None)
        refused = ""
    except InvalidDeletion as error:
        refused = str(error)
    sys.stdout.write(json.dumps({"results": results, "refused": refused}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


def test_nothing_is_started_without_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)

    run_tasks(refuse, [], lambda task: (task,), cores=2, done=lambda task, result: pytest.fail(f"{task}: {result}"))


@pytest.mark.flower
def test_every_task_runs_once_in_another_process_and_none_stays(marked_processes: Callable[[str], list[str]]) -> None:
    # In a process of its own: Ray closes its log files and reaps its servers when Python ends, too late for pytest.
    script = "from tests.simulations.test_ray_tasks import report; report()"
    mark = uuid.uuid4().hex
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}

    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-W", "error::FutureWarning", "-c", script],
        cwd=Path(__file__).parents[2],
        env={**environment, "MUNKEY_TEST_MARK": mark},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as driver:
        assert driver.stdout is not None
        found = json.loads(driver.stdout.readline())
        left = marked_processes(mark)
        driver.communicate()

    assert Counter(task for task, _ in found["results"]) == Counter(range(_TASKS))
    for task, (number, shared, others, process) in found["results"]:
        assert (number, shared, others) == (task * _LARGE, _SHARED, [task, task + 1])
        assert process != driver.pid
    # As it was raised, without the other process's traceback.
    assert found["refused"] == "13 cannot be done; choose another"
    # The one that asked.
    assert len(left) == 1
    assert marked_processes(mark) == []
    assert driver.returncode == 0
