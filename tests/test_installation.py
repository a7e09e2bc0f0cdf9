"""What an installation brings: one name, and programs that work from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP_FOLDERS = {"client", "common", "protos", "server", "simulations"}


def build(folder: Path, kind: str, into: Path) -> Path:
    command = [sys.executable, "-P", "-m", "hatchling", "build", "--target", kind, "--directory", str(into)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=900)  # noqa: S603
    (built,) = into.iterdir()
    return built


@pytest.fixture(scope="module", params=["of the checkout", "of the source distribution"])
def wheel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = ROOT
    if request.param != "of the checkout":
        unpacked = tmp_path_factory.mktemp("source")
        with tarfile.open(build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))) as source:
            source.extractall(unpacked, filter="data")
        (folder,) = unpacked.iterdir()
    return build(folder, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.mark.processes
def test_wheel_installs_one_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()

    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"fedmunkey"}
    assert {name.split("/")[1] for name in names if name.startswith("fedmunkey/")} == TOP_FOLDERS


@pytest.mark.processes
def test_wheel_holds_every_file_of_the_product(wheel: Path) -> None:
    tracked = subprocess.run(  # noqa: S603
        ["git", "ls-files", *sorted(TOP_FOLDERS)],  # noqa: S607
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())

    assert [name for name in tracked if f"fedmunkey/{name}" not in names] == []


@pytest.mark.processes
def test_programs_of_the_wheel_run_from_a_folder_with_modules_of_their_names(wheel: Path, tmp_path: Path) -> None:
    site_packages = tmp_path / "site-packages"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site_packages)  # noqa: S202 (built here)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in TOP_FOLDERS:
        (elsewhere / f"{name}.py").write_text("raise SystemExit('the working directory was imported')")

    for program in ("client", "server", "simulations"):
        shown = subprocess.run(  # noqa: S603
            [sys.executable, "-P", "-c", f"from fedmunkey.{program}.cli import main; main()", "--help"],
            cwd=elsewhere,
            env={**os.environ, "PYTHONPATH": str(site_packages)},
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "Usage" in shown.stdout
