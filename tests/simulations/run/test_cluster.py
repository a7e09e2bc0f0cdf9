"""A simulation on a Ray cluster comes to the same weights as on one machine, though a node is lost in mid-round."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmunkey.client.records.dataset import Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.closed_form.release import read_release
from fedmunkey.common.programs.bound_program import bound_command
from fedmunkey.common.settings.settings import Settings
from tests.simulations.whole_runs import RUN_SECONDS, expected_weights, started, wait_for

pytestmark = pytest.mark.flower

HOSPITALS = 12
RAY_CLUSTER = Path(__file__).parents[1] / "ray_cluster.py"
PLAN = ["records:5%@1", "site:3@1"]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files; short, for the paths of Ray's sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def cluster(temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """A cluster of three nodes on this machine, each for one hospital at a time."""
    command = bound_command([sys.executable, str(RAY_CLUSTER), str(temporary / "ray")])
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(  # noqa: S603
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        yield process
        process.terminate()


def ask(cluster: subprocess.Popen[str], line: str = "") -> str:
    """Give the cluster a line, if any, and return the next one that it says."""
    assert cluster.stdin is not None
    assert cluster.stdout is not None
    cluster.stdin.write(line)
    cluster.stdin.flush()
    return cluster.stdout.readline().strip()


def test_a_node_is_lost_in_mid_round_and_the_weights_are_those_of_one_machine(
    cluster: subprocess.Popen[str], temporary: Path, tmp_path: Path
) -> None:
    folder, storage = tmp_path / "run", tmp_path / "storage"
    words = [word for deletion in PLAN for word in ("--delete", deletion)]
    words += ["--hospitals", str(HOSPITALS), "--no-baselines", "--output", str(folder), "--storage", str(storage)]
    log = folder / "logs" / "run.log"
    with started(*words, "--ray-address", ask(cluster), temporary=temporary) as run:
        assert wait_for(lambda: log.exists() and "sums over" in log.read_text(), RUN_SECONDS), log.read_text()
        assert ask(cluster, "lose a node\n") == "lost"
        code = run.wait(RUN_SECONDS)

    assert code == 0, log.read_text()
    report = json.loads((folder / "report.json").read_text())
    settings = Settings.parse(report["settings"])
    assert read_release(folder / "coordinator" / "last.safetensors").digest() == expected_weights(
        settings, HOSPITALS, PLAN
    )
    assert [deletion["entries"] for deletion in report["deletions"]] == [
        sum(deletion["expected"]) for deletion in report["deletions"]
    ]
    with SiteFolder(storage / "sites" / "hospital-3").open() as store:
        assert store.records.count(Split.TRAIN) == 0
