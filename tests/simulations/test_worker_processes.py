"""Worker processes, and where their parent is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable

import pytest

from fedmunkey.simulations.worker_processes import worker_processes

SECONDS = 30.0
WAITS = """
import time
from fedmunkey.simulations.worker_processes import worker_processes

if __name__ == "__main__":
    with worker_processes(2) as pool:
        print(*pool.map(abs, [-1, -2]), flush=True)
        time.sleep(600)
"""

pytestmark = pytest.mark.processes


def test_each_computes() -> None:
    with worker_processes(2) as pool:
        assert list(pool.map(abs, [-1, 2, -3])) == [1, 2, 3]


def test_none_outlives_a_parent_that_is_killed(marked_processes: Callable[[str], list[str]]) -> None:
    mark = uuid.uuid4().hex
    environment = {**os.environ, "MUNKEY_TEST_MARK": mark}
    command = [sys.executable, "-c", WAITS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:  # noqa: S603 (this interpreter)
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"1 2\n"
        assert len(marked_processes(mark)) > 2
        parent.send_signal(signal.SIGKILL)

    deadline = time.monotonic() + SECONDS
    while (left := marked_processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []
