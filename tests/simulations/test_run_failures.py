"""What a simulation says when its federation ends too early."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fedmunkey.common.errors import FederationStopped
from fedmunkey.common.settings.settings import Settings
from fedmunkey.server.rounds.run_record import EVENTS
from fedmunkey.simulations.programs.progress import Progress
from fedmunkey.simulations.run import run
from fedmunkey.simulations.run.experiment import Experiment
from fedmunkey.simulations.run.run import LOGS


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (
            "Traceback:\n\x1b[91mray.exceptions.RaySystemError: System error: no raylet\x1b[0m\n  INFO: the rest\n",
            ": ray.exceptions.RaySystemError: System error: no raylet; see ",
        ),
        ("ValueError: first\nValueError: second\n", ": ValueError: second; see "),
        ("nothing that helps\n", "; see "),
    ],
)
def test_federation_that_ends_too_early_is_told_with_its_last_exception(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: str, said: str
) -> None:
    @contextmanager
    def failing(*_: Any, logs: Path, **__: Any) -> Iterator[subprocess.Popen[bytes]]:
        logs.mkdir()
        (logs / "run.log").write_text(log)
        with subprocess.Popen([sys.executable, "-c", ""]) as process:
            yield process

    monkeypatch.setattr(run, "running_federation", failing)
    experiment = Experiment("digits", None, 2, 1.0, None, [], {}, [], tmp_path, cores=1)
    settings = Settings().replace(output_dir=str(tmp_path))
    (tmp_path / EVENTS).write_text(json.dumps({"event": "none"}) + "\n")

    with pytest.raises(FederationStopped) as raised:
        run._train(experiment, settings, Progress.quiet())

    assert str(raised.value) == f"the federation ended before its last round{said}{tmp_path / LOGS / 'run.log'}"
