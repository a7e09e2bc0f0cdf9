"""What `deploy/` offers can be used as it stands."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fedmunkey.client.supernode.site_file import SiteFile
from fedmunkey.server.superlink.coordinator_file import CoordinatorFile

DEPLOY = Path(__file__).parents[1] / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))


def test_files_of_settings_can_be_read() -> None:
    coordinator, site = CoordinatorFile.read(DEPLOY / "coordinator.toml"), SiteFile.read(DEPLOY / "site.toml")

    assert coordinator.run_settings().num_rounds == 10
    assert site.deletion_service.rpartition(":")[2] == coordinator.deletion_service.rpartition(":")[2]
    assert site.superlink.rpartition(":")[2] == coordinator.superlink.rpartition(":")[2]


def test_units_write_only_where_the_files_of_settings_say() -> None:
    folders = {unit: re.search(r"^StateDirectory=(.*)$", unit.read_text(), re.M) for unit in UNITS}
    state = {unit.name: f"/var/lib/{found[1]}/" for unit, found in folders.items() if found}

    coordinator, site = CoordinatorFile.read(DEPLOY / "coordinator.toml"), SiteFile.read(DEPLOY / "site.toml")
    assert str(coordinator.coordinator_dir).startswith(state["fedmunkey-coordinator.service"])
    assert str(site.site_dir).startswith(state["fedmunkey-site.service"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_the_unit(unit: Path, tmp_path: Path) -> None:
    programs = re.sub(r"/opt/fedmunkey/bin/\S+", str(shutil.which("true")), unit.read_text())
    (tmp_path / unit.name).write_text(programs)

    checked = subprocess.run(  # noqa: S603
        [str(shutil.which("systemd-analyze")), "verify", "--recursive-errors=no", str(tmp_path / unit.name)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (checked.returncode, [line for line in checked.stderr.splitlines() if unit.name in line]) == (0, [])
