"""What a person sees while a simulation runs."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from fedmunkey.simulations.programs.progress import Progress


@pytest.fixture
def console() -> Console:
    return Console(file=StringIO(), width=60)


def shown(console: Console) -> list[str]:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def event(**changes: Any) -> dict[str, Any]:
    return {"event": "round", "number": 2, "mean": {"test-accuracy": 0.875}, "failures": {}, **changes}


def test_round_shows_its_test_accuracy_beside_the_bar(console: Console) -> None:
    console.width = 120
    with Progress(console) as progress, progress.counting("training", 3) as count:
        count(2)
        progress.round(event())

    (line,) = shown(console)
    assert line.startswith("training")
    assert "2/3" in line
    assert "test accuracy 87.5%" in line


def test_site_that_could_not_take_part_is_named_with_its_reason_on_one_line(console: Console) -> None:
    reason = "there is no key store /srv/hospital-2/[red]keystore.sqlite; enrol the site's records first"
    with Progress(console) as progress, progress.counting("training", 3):
        # Nobody has evaluated that round.
        progress.round(event(mean={}, failures={"hospital-2": reason}))

    assert f"round 2: hospital-2 could not take part: {reason}" in shown(console)
    assert any("training" in line for line in shown(console))


def test_lines_and_what_is_waited_for_are_shown_as_they_are_and_nothing_before(console: Console) -> None:
    reason = "the deletion service at 127.0.0.1:1 cannot be reached; no training until it answers (waited 0 of 60 s)"
    line = "before round 4: subjects:2@4 over gRPC: 2 requests, 12 entries gone in 0.50 s ([exact])"
    with Progress(console) as progress:
        before = shown(console)
        progress.waiting({"event": "waiting", "reason": reason})
        progress.say(line)

    assert before == []
    assert {f"waiting: {reason}", line} <= set(shown(console))


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress.quiet() as progress, progress.counting("training", 3) as count:
        count(1)
        progress.round(event(failures={"hospital-2": "gone"}))
        progress.waiting({"event": "waiting", "reason": "gone"})

    assert capsys.readouterr() == ("", "")
