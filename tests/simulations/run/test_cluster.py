"""A simulation on a Ray cluster comes to the same weights as on one machine, though a node is lost in mid-round."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedmunkey.client.records.dataset import Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.closed_form.release import read_release
from fedmunkey.common.settings.settings import Settings
from tests.processes import SECONDS
from tests.simulations.whole_runs import expected_weights, started, wait_for

pytestmark = pytest.mark.flower

HOSPITALS = 12
PLAN = ["records:5%@1", "site:3@1"]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files; short, for the paths of Ray's sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def cluster(temporary: Path) -> Iterator[Any]:
    """A cluster of three nodes on this machine, each for one hospital at a time."""
    # Ray takes seconds to import.
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    head = {**node, "include_dashboard": False, "temp_dir": str(temporary / "ray")}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        made.add_node(**node)
        made.add_node(**node)
        yield made
    finally:
        made.shutdown()


def test_a_node_is_lost_in_mid_round_and_the_weights_are_those_of_one_machine(
    cluster: Any, temporary: Path, tmp_path: Path
) -> None:
    folder, storage = tmp_path / "run", tmp_path / "storage"
    words = [word for deletion in PLAN for word in ("--delete", deletion)]
    words += ["--hospitals", str(HOSPITALS), "--no-baselines", "--output", str(folder), "--storage", str(storage)]
    log = folder / "logs" / "run.log"
    with started(*words, "--ray-address", cluster.address, temporary=temporary) as run:
        assert wait_for(lambda: log.exists() and "sums over" in log.read_text(), SECONDS), log.read_text()
        lost = sorted(cluster.worker_nodes, key=lambda node: node.node_ip_address)[0]
        cluster.remove_node(lost, allow_graceful=False)
        code = run.wait(SECONDS)

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
