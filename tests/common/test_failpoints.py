from __future__ import annotations

import ast
import errno
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from fedmunkey.common import failpoints
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.failpoints import Act, Action, Armed, Failpoint, FailpointPlan
from fedmunkey.common.programs import command_line
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]
POINT = Failpoint.APPLY_BEFORE_COMMIT
OTHER = Failpoint.SUBMIT_RECEIVED


def armed(text: str) -> tuple[Armed, list[object]]:
    """Return a plan whose kills and waits are written down."""
    done: list[object] = []
    return Armed(FailpointPlan.parse(text), kill=lambda: done.append("killed"), wait=done.append), done


def test_each_failpoint_is_in_the_code_once() -> None:
    names = {point.name for point in Failpoint}
    found = [
        node.args[0].attr
        for package in ("common", "client", "server")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("hit", "_hit_each")
        and node.args
        and isinstance(node.args[0], ast.Attribute)
    ]

    assert sorted(found) == sorted(names)


def test_nothing_happens_without_a_plan() -> None:
    failpoints.arm_from_environment({failpoints.VARIABLE: f"{POINT}=raise:ENOSPC"})
    with pytest.raises(OSError, match="No space left"):
        failpoints.hit(POINT)

    failpoints.arm_from_environment({})

    failpoints.hit(POINT)


def test_only_the_named_failpoint_acts_and_only_at_its_time_or_every_time() -> None:
    plan, done = armed(f"{POINT}=kill@3")
    for _ in range(5):
        plan.hit(OTHER)
        plan.hit(POINT)
        done.append("passed")
    waiting, waited = armed(f"{POINT}=delay:0.25")
    for _ in range(2):
        waiting.hit(POINT)

    assert done == ["passed", "passed", "killed", "passed", "passed", "passed"]
    assert waited == [0.25, 0.25]


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("ENOSPC", OSError, os.strerror(errno.ENOSPC)),
        ("BUSY", sqlite3.OperationalError, "database is locked"),
        ("FULL", sqlite3.OperationalError, "disk is full"),
        ("CORRUPT", sqlite3.DatabaseError, "malformed"),
    ],
)
def test_error_is_the_real_one(name: str, kind: type[Exception], message: str) -> None:
    plan, _ = armed(f"{POINT}=raise:{name}")

    with pytest.raises(kind, match=message):
        plan.hit(POINT)


def test_chance_is_repeatable_and_near_its_probability() -> None:
    def run(seed: int) -> list[bool]:
        plan, done = armed(f"{POINT}=kill%0.2;seed={seed}")
        happened = []
        for _ in range(500):
            plan.hit(POINT)
            happened.append(bool(done))
            done.clear()
        return happened

    assert run(1) == run(1) != run(2)
    assert 60 < sum(run(1)) < 140


def test_plan_is_read_back_as_it_was_written() -> None:
    plan = FailpointPlan(
        {
            POINT: Action(Act.KILL, at=3),
            OTHER: Action(Act.RAISE, error="ENOSPC", probability=0.5),
            Failpoint.TRAIN_AFTER_STEP: Action(Act.DELAY, seconds=0.25),
        },
        seed=7,
    )

    assert FailpointPlan.parse(str(plan)) == plan


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere=kill", "'nowhere' is no failpoint"),
        (f"{POINT}=explode", "no known action"),
        (f"{POINT}", "no known action"),
        (f"{POINT}=raise:EVERYTHING", "names no error"),
        (f"{POINT}=raise", "names no error"),
        (f"{POINT}=delay:soon", "'soon'"),
        (f"{POINT}=delay:-1", "out of range"),
        (f"{POINT}=kill@0", "out of range"),
        (f"{POINT}=kill@x", "whole number"),
        (f"{POINT}=kill%2", "out of range"),
        (f"{POINT}=kill@1%0.5", "both @ and %"),
        (f"{POINT}=kill:9", "out of range"),
        ("seed=x", "whole number"),
    ],
)
def test_malformed_plan_is_refused_with_the_item(text: str, message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        FailpointPlan.parse(text)


@pytest.mark.processes
def test_process_kills_itself_where_its_environment_says() -> None:
    program = (
        "from fedmunkey.common.failpoints import Failpoint, hit\n"
        "for n in range(9):\n hit(Failpoint.TRAIN_AFTER_STEP)\n print(n)"
    )

    ended = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, failpoints.VARIABLE: "train.after-step=kill@3", "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout.split() == ["0", "1"]


def test_command_line_says_what_is_wrong_with_a_plan(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = command_line.application("A program.")
    app.command("go")(lambda: None)
    monkeypatch.setenv(failpoints.VARIABLE, "nowhere=kill")
    with pytest.raises(SystemExit) as ended:
        command_line.run(app)

    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: MUNKEY_FAILPOINTS: 'nowhere' is no failpoint")
