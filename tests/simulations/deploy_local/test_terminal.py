from __future__ import annotations

from pathlib import Path

import pytest

from fedmunkey.simulations.deploy_local.terminal import StepFailed, Terminal


def test_commands_are_shown_as_typed_with_their_output(tmp_path: Path) -> None:
    shown: list[str] = []

    with Terminal(tmp_path, shown.append) as terminal:
        out = terminal.type("python", "-c", "print('a b')")

    assert out == "a b\n"
    assert shown == ["$ python -c 'print('\"'\"'a b'\"'\"')'", "  a b"]
    assert [step.code for step in terminal.steps] == [0]


def test_command_that_fails_ends_the_way(tmp_path: Path) -> None:
    with Terminal(tmp_path, str) as terminal, pytest.raises(StepFailed, match="ended with code 3: out of disk"):
        terminal.type("python", "-c", "import sys; print('out of disk', file=sys.stderr); sys.exit(3)")


def test_refusal_must_come_and_say_why_in_one_line(tmp_path: Path) -> None:
    with Terminal(tmp_path, str) as terminal:
        terminal.type("python", "-c", "import sys; sys.stderr.write('error: no\\n'); sys.exit(2)", refused=True)
        for script in ("pass", "raise RuntimeError"):
            with pytest.raises(StepFailed, match="should have been refused"):
                terminal.type("python", "-c", script, refused=True)


def test_what_was_started_is_stopped_when_a_step_fails(tmp_path: Path) -> None:
    serve = "import signal; print('up', flush=True); signal.pause()"
    terminal = Terminal(tmp_path, str)
    background = terminal.start("service", "python", "-c", serve)
    background.expect("up")

    with pytest.raises(StepFailed, match="not so: all are there"), terminal:
        terminal.check("all are there", lambda: False)

    assert background.stop() == -15
    assert (tmp_path / "service.log").read_text() == "up\n"


def test_program_that_ends_without_the_line_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with (
        pytest.raises(StepFailed, match="service does not say 'up'; its last lines:\nno port"),
        Terminal(tmp_path, str) as terminal,
    ):
        terminal.start("service", "python", "-c", "print('no port')").expect("up")
