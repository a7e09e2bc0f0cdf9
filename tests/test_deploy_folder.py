"""What `deploy/` offers can be used as it stands."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fedmunkey.client.supernode.site_file import SiteFile
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
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


def test_superlink_reads_neither_the_authoritys_key_nor_the_logs() -> None:
    folder = CoordinatorFolder(CoordinatorFile.read(DEPLOY / "coordinator.toml").coordinator_dir)
    hidden = re.search(r"^InaccessiblePaths=(.*)$", (DEPLOY / "fedmunkey-superlink.service").read_text(), re.M)

    assert hidden is not None
    assert hidden[1].split() == [f"-{folder.authority}", f"-{folder.log_key}"]


def test_supernode_runs_under_an_account_of_its_own_that_reads_nothing_of_the_site() -> None:
    lines = (DEPLOY / "fedmunkey-supernode.service").read_text().splitlines()
    site = SiteFile.read(DEPLOY / "site.toml")

    assert "User=fedmunkey-supernode" in lines
    assert "User=fedmunkey" in (DEPLOY / "fedmunkey-site.service").read_text().splitlines()
    (hidden,) = [line.partition("=-")[2] for line in lines if line.startswith("InaccessiblePaths=")]
    assert site.site_dir.is_relative_to(hidden)
    assert site.supernode_dir is not None
    assert not site.supernode_dir.is_relative_to(hidden)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_bound_memory_and_write_it_nowhere(unit: Path) -> None:
    lines = unit.read_text().splitlines()

    assert {"LimitCORE=0", "MemorySwapMax=0", "ProtectSystem=strict", "NoNewPrivileges=yes"} <= set(lines)
    assert any(line.startswith("MemoryMax=") for line in lines)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_finds_the_unit_little_exposed(unit: Path) -> None:
    analysed = subprocess.run(  # noqa: S603
        [str(shutil.which("systemd-analyze")), "security", "--offline=true", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "--offline" in analysed.stderr:
        pytest.skip("this systemd looks at loaded units only")

    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", analysed.stdout)
    assert found is not None, analysed.stderr
    assert float(found[1]) <= 1.5


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
