"""What a task's program takes from the SuperNode that hands it over."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.supernode.runtime import run_clientapp

from fedmunkey.client.supernode.clientapp_program import distrust
from fedmunkey.client.supernode.site_file import SiteFile
from fedmunkey.client.supernode.up import Part, check_kept_apart, children
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.programs.flower import MANIFEST, app_manifest
from fedmunkey.common.settings.settings import Settings

SITE = 'site-dir = "site"\nsuperlink = "127.0.0.1:8443"\ndeletion-service = "127.0.0.1:9440"\n'


@pytest.fixture
def file(tmp_path: Path) -> SiteFile:
    (tmp_path / "site").mkdir()
    (tmp_path / "site.toml").write_text(SITE + 'supernode-dir = "node"\n')
    return SiteFile.read(tmp_path / "site.toml")


def packed(**files: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as app:
        for name, text in {MANIFEST: app_manifest(Settings()), **files}.items():
            app.writestr(name, text)
    return content.getvalue()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, file: SiteFile) -> list[bytes]:
    """What Flower would have installed; a SuperNode that lies hands over the tasks."""
    found: list[bytes] = []
    told = SimpleNamespace(node_config={"evaluation": "full", "site-dir": "/elsewhere", "insecure-orders": True})
    monkeypatch.setattr(run_clientapp, "install_from_fab", lambda content, **_: found.append(content))
    monkeypatch.setattr(run_clientapp, "pull_task_input", lambda _: ("message", told, "run", "fab"))
    distrust(file)
    return found


def test_app_with_code_is_not_installed_though_the_supernode_hands_it_over(installed: list[bytes]) -> None:
    install: Any = vars(run_clientapp)["install_from_fab"]

    with pytest.raises(InvalidSetting, match=r"holds 'evil\.py'"):
        install(packed(**{"evil.py": "import os"}), skip_prompt=True)
    assert installed == []
    install(packed(), skip_prompt=True)
    assert installed == [packed()]


@pytest.mark.usefixtures("installed")
def test_nodes_settings_are_those_of_the_sites_own_file(file: SiteFile) -> None:
    pull: Any = vars(run_clientapp)["pull_task_input"]

    assert pull(None)[1].node_config == file.node_config
    assert "insecure-orders" not in file.node_config


def test_each_account_runs_its_own_processes(file: SiteFile, tmp_path: Path) -> None:
    path = tmp_path / "site.toml"

    assert [child.name for child in children(file, path)] == ["agent", "apps", "supernode"]
    assert [child.name for child in children(file, path, Part.SITE)] == ["agent", "apps"]
    (supernode,) = children(file, path, Part.SUPERNODE)
    assert supernode.environment["FLWR_HOME"] == str(tmp_path / "node" / "flower")
    assert file.supernode.identity == tmp_path / "node" / "identity"


def test_account_that_reads_what_is_the_sites_starts_no_supernode_by_itself(file: SiteFile, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"this account can read .*site, which Flower's SuperNode should not"):
        check_kept_apart(file)
    (tmp_path / "site.toml").write_text(SITE)
    with pytest.raises(InvalidSetting, match="--only supernode needs supernode-dir"):
        check_kept_apart(SiteFile.read(tmp_path / "site.toml"))


def test_task_of_a_round_starts_without_the_supernode() -> None:
    """Each message of a round is a process of its own, and what it imports is waited for."""
    code = (
        "import sys; import fedmunkey.client.supernode.clientapp_program; "
        "print({'alembic', 'sqlalchemy'} & {*sys.modules})"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603

    assert ended.stdout == "set()\n"
