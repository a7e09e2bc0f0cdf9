"""A folder's programs run once: a second one is told who runs it and since when."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedmunkey.common.errors import InvalidSetting, ProcessNotStarted
from fedmunkey.common.programs.folder_lock import held, holder

_HOLD = (
    "import sys; from pathlib import Path; from fedmunkey.common.programs.folder_lock import held\n"
    "with held(Path(sys.argv[1]), ['agent']): print('held', flush=True); sys.stdin.read()"
)


def test_second_process_is_told_who_holds_it_and_since_when(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:  # noqa: S603
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"

        with pytest.raises(ProcessNotStarted) as refused, held(tmp_path, ["supernode", "agent"]):
            pass
        said = holder(tmp_path, "agent")
        first.kill()

    who = rf"process {first.pid} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    assert re.search(f"agent of {tmp_path} is running already, {who}; stop that one first", str(refused.value))
    assert re.fullmatch(who, said or "")
    # Killed as it was, it has freed the lock; what was taken before the refusal is free as well.
    with held(tmp_path, ["supernode", "agent"]):
        assert holder(tmp_path, "agent") is not None
    assert holder(tmp_path, "agent") is None


def test_other_programs_of_a_folder_run_beside_it(tmp_path: Path) -> None:
    with held(tmp_path, ["superlink"]), held(tmp_path, ["deletion-service"]):
        assert f"process {os.getpid()} " in (holder(tmp_path, "superlink") or "")


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(InvalidSetting, match=r"agent\.running cannot be written"), held(tmp_path / "file", ["agent"]):
        pass
