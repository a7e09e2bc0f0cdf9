"""Nothing that a program has started outlives it, however it ends and at whatever depth it was started."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fedmunkey.common.programs.last_watch import VARIABLE, end_marked, marked
from tests.processes import gone

pytestmark = pytest.mark.processes

_NESTED = (
    "import subprocess, sys; other = [sys.executable, '-S', '-c', 'import time; time.sleep(600)'];"
    "print(subprocess.Popen(other, start_new_session=True).pid, flush=True); import time; time.sleep(600)"
)
_PARENT = (
    "import os, subprocess, sys; from fedmunkey.common.programs.last_watch import last_watch\n"
    "with last_watch() as mark:\n"
    "    child = subprocess.Popen([sys.executable, '-S', '-c', sys.argv[1]], env={**os.environ, **mark},\n"
    "                             start_new_session=True, stdout=subprocess.PIPE)\n"
    "    print(child.pid, int(child.stdout.readline()), flush=True)\n"
    "    sys.stdin.read()\n"
)


@pytest.mark.parametrize("killed", [True, False])
def test_children_and_theirs_end_with_their_parent(killed: bool) -> None:
    command = [sys.executable, "-c", _PARENT, _NESTED]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:  # noqa: S603
        assert parent.stdout is not None
        child, nested = map(int, parent.stdout.readline().split())
        if killed:
            parent.kill()

    assert gone(child)
    assert gone(nested)


def test_one_that_does_not_heed_is_killed_and_others_are_left_alone() -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    command = [sys.executable, "-S", "-c", deaf]
    with (
        subprocess.Popen(command, env={**os.environ, VARIABLE: "one"}, stdout=subprocess.PIPE) as one,  # noqa: S603
        subprocess.Popen(command, env={**os.environ, VARIABLE: "other"}, stdout=subprocess.PIPE) as other,  # noqa: S603
    ):
        for process in (one, other):
            assert process.stdout is not None
            process.stdout.readline()
        found = marked("one")

        end_marked("one", grace=0.1)

        assert found == [one.pid]
        assert one.wait() == -9
        assert other.poll() is None
        other.kill()
