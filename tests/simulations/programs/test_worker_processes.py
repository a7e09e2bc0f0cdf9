"""Pieces of work on all cores: each runs once, and no process is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.simulations.programs import worker_processes
from fedmunkey.simulations.programs.worker_processes import TaskLost, run_tasks
from tests.patience import PATIENCE

WAITS = """
from time import sleep
from fedmunkey.simulations.programs.worker_processes import run_tasks

def tell(task, result):
    print(result, flush=True)
    sleep(600)

if __name__ == "__main__":
    run_tasks(abs, [-1, -2], lambda task: (task,), cores=2, done=tell)
"""


def describe(number: int, others: tuple[int, ...]) -> tuple[int, tuple[int, ...], int]:
    """Return what was given, and in which process."""
    return number, others, os.getpid()


def refuse(number: int, path: Path) -> None:
    """Raise what a person can put right; other numbers take for ever, once they are at work."""
    if number != 13:
        path.touch()
        time.sleep(600)
    while not path.exists():
        time.sleep(0.01)
    raise InvalidDeletion(f"{number} cannot be done; choose another")


def wait_until_gone(find: Callable[[], list[Any]]) -> list[Any]:
    deadline = time.monotonic() + PATIENCE
    while (left := find()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def test_nothing_is_started_without_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_processes, "ProcessPoolExecutor", None)

    run_tasks(abs, [], lambda task: (task,), cores=2, done=lambda task, result: pytest.fail(f"{task}: {result}"))


@pytest.mark.processes
def test_every_task_runs_once_in_another_process() -> None:
    results: list[tuple[int, tuple[int, tuple[int, ...], int]]] = []

    run_tasks(
        describe,
        range(12),
        lambda task: (10_000 * task, (task, task + 1)),
        cores=2,
        done=lambda task, result: results.append((task, result)),
    )

    assert Counter(task for task, _ in results) == Counter(range(12))
    for task, (number, others, process) in results:
        assert (number, others) == (10_000 * task, (task, task + 1))
        assert process != os.getpid()


@pytest.mark.processes
def test_error_comes_back_as_it_was_and_the_other_tasks_are_given_up(
    tmp_path: Path, marked_processes: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = uuid.uuid4().hex
    monkeypatch.setenv("MUNKEY_TEST_MARK", mark)

    with pytest.raises(InvalidDeletion, match="13 cannot be done; choose another"):
        run_tasks(refuse, [1, 13, 2], lambda task: (task, tmp_path / "at work"), cores=2, done=lambda *_: None)

    assert wait_until_gone(lambda: [left for left in marked_processes(mark) if "spawn_main" in left]) == []


@pytest.mark.processes
def test_process_that_is_killed_is_named_in_one_line() -> None:
    with pytest.raises(TaskLost, match="was killed while it computed; if memory was short, use fewer --cores"):
        run_tasks(os._exit, [3], lambda task: (task,), cores=1, done=lambda *_: None)


@pytest.mark.processes
def test_none_outlives_a_parent_that_is_killed(tmp_path: Path, marked_processes: Callable[[str], list[str]]) -> None:
    mark = uuid.uuid4().hex
    script = tmp_path / "waits.py"
    script.write_text(WAITS)
    environment = {**os.environ, "MUNKEY_TEST_MARK": mark}
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:  # noqa: S603 (this interpreter)
        assert parent.stdout is not None
        assert parent.stdout.readline() in (b"1\n", b"2\n")
        assert len(marked_processes(mark)) > 2
        parent.send_signal(signal.SIGKILL)

    assert wait_until_gone(lambda: marked_processes(mark)) == []
