"""Flower's simulation runtime is started with our settings, and nothing of it is left behind."""

from __future__ import annotations

import math
import os
import sys
import tempfile
import tomllib
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from fedmunkey.common.errors import FederationStopped
from fedmunkey.common.programs.flower import app_manifest
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.run import flower_runtime
from fedmunkey.simulations.run.flower_runtime import running_federation


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> str:
    """A word in the environment of every process that is started from here."""
    word = uuid.uuid4().hex
    monkeypatch.setenv("MUNKEY_TEST_MARK", word)
    return word


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which Flower's homes are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("folder", ["plain", 'with "quotes"', "back\\slash", "hôpital", "\N{HOSPITAL}", "#1 = x", ""])
def test_manifest_gives_both_apps_exactly_the_settings(folder: str) -> None:
    settings = Settings().replace(output_dir=folder, temperature=1e-6, image_vote=False, image_shape="3x28x28")
    unbounded = settings.replace(guarantee="certified", epsilon=math.inf)

    for asked in (settings, unbounded):
        app = tomllib.loads(app_manifest(asked))["tool"]["flwr"]["app"]
        assert app["config"] == asked.to_config()
        assert Settings.parse(app["config"]) == asked
        assert app["components"] == {"serverapp": "fedmunkey.server.app:app", "clientapp": "fedmunkey.client.app:app"}


def test_superlink_that_does_not_start_is_said_with_its_log_and_leaves_nothing(
    tmp_path: Path,
    homes: Path,
    mark: str,
    marked_processes: Callable[[str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It leaves a process of its own behind, as a SuperLink that dies may.
    script = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    monkeypatch.setattr(flower_runtime, "_superlink_command", lambda _: [sys.executable, "-c", script])
    logs = tmp_path / "logs"

    with (
        pytest.raises(FederationStopped, match=r"Flower's SuperLink did not start; see .*/superlink\.log"),
        running_federation(Settings(), sites=1, cores=1, logs=logs),
    ):
        raise AssertionError("there is nothing to run")

    assert (logs / "superlink.log").is_file()
    assert marked_processes(mark) == []
    assert list(homes.glob("munkey-*")) == []


@pytest.mark.flower
def test_stopping_in_the_middle_leaves_no_process_and_no_files(
    tmp_path: Path, homes: Path, mark: str, marked_processes: Callable[[str], list[str]]
) -> None:
    logs = tmp_path / "logs"

    with running_federation(Settings(), sites=1, cores=1, logs=logs) as run:
        started = marked_processes(mark)
        group = os.getpgid(run.pid)

    assert any("flower-superlink" in command for command in started)
    # Not ours: an interrupt at the keyboard is for us to pass on.
    assert group == run.pid != os.getpgid(0)
    assert run.returncode is not None
    assert marked_processes(mark) == []
    assert list(homes.glob("munkey-*")) == []


def test_another_pythonpath_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")

    environment = flower_runtime._environment(tmp_path, "")

    ours, others = environment["PYTHONPATH"].split(os.pathsep)
    assert (Path(ours) / "fedmunkey" / "server" / "app.py").is_file()
    assert others == "/elsewhere"
    assert environment["FLWR_HOME"] == str(tmp_path)
