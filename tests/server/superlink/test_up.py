from __future__ import annotations

import sys
from pathlib import Path

import pytest

import fedmunkey.server.cli
from fedmunkey.common.programs import command_line
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.server.superlink.coordinator_file import CoordinatorFile
from fedmunkey.server.superlink.up import serve_command


def typed(monkeypatch: pytest.MonkeyPatch, *words: object) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["munkey-server", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        command_line.run(fedmunkey.server.cli.app)
    return ended.value.code


def written(folder: Path, text: str = "") -> Path:
    path = folder / "coordinator.toml"
    path.write_text(f'coordinator-dir = "coordinator"\n{text}')
    return path


def test_file_that_can_be_used_is_only_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    CoordinatorFolder(tmp_path / "coordinator").create("test federation", ["127.0.0.1"])

    assert typed(monkeypatch, "up", written(tmp_path), "--check") == 0

    assert "coordinator.toml can be used: coordinator coordinator" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["up"], ["up", "--check"], ["run"]])
def test_bad_file_names_key_and_value_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    CoordinatorFolder(tmp_path / "coordinator").create("test federation", ["127.0.0.1"])

    assert typed(monkeypatch, *command, written(tmp_path, 'superlink = "here"')) == 2

    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert "superlink = here: must be host:port" in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_coordinator_without_identity_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(monkeypatch, "up", written(tmp_path)) == 2

    assert "holds no identity" in capsys.readouterr().err


def test_certificate_must_name_where_the_coordinator_reaches_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    CoordinatorFolder(tmp_path / "coordinator").create("test federation", ["coordinator.example.org"])

    assert typed(monkeypatch, "up", written(tmp_path), "--check") == 2

    assert "munkey-server renew --host coordinator.example.org --host 127.0.0.1" in capsys.readouterr().err


def test_deletion_service_gets_what_the_file_says(tmp_path: Path) -> None:
    read = CoordinatorFile.read(written(tmp_path, 'metrics = "127.0.0.1:9442"\ndue-days = 20\nlog-format = "json"'))

    words = serve_command(read)

    assert words[words.index("serve") :] == [
        *["serve", "--coordinator-dir", str(tmp_path / "coordinator")],
        *["--database", str(tmp_path / "coordinator" / "ledger.sqlite")],
        *["--address", "0.0.0.0:9440", "--joining-address", "0.0.0.0:9441"],
        *["--due-days", "20", "--log-format", "json", "--metrics", "127.0.0.1:9442"],
    ]
