from __future__ import annotations

from pathlib import Path

import pytest

from fedmunkey.server.database import connection
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.server.superlink.coordinator_file import CoordinatorFile
from fedmunkey.server.superlink.up import children, chosen, serve_command
from tests.server.superlink.test_coordinator_file import written
from tests.typed import Run


def test_file_that_can_be_used_is_only_checked(run: Run, tmp_path: Path) -> None:
    CoordinatorFolder(tmp_path / "coordinator").create("test federation", ["127.0.0.1"])

    code, out, _ = run("up", written(tmp_path), "--check")

    assert code == 0
    assert "coordinator.toml can be used: coordinator " in out


@pytest.mark.parametrize("command", [["up"], ["up", "--check"], ["run"]])
def test_bad_file_names_key_and_value_and_starts_nothing(run: Run, tmp_path: Path, command: list[str]) -> None:
    CoordinatorFolder(tmp_path / "coordinator").create("test federation", ["127.0.0.1"])

    assert "superlink = here: must be host:port" in run(*command, written(tmp_path, 'superlink = "here"')).error


def test_coordinator_without_identity_is_told_what_to_do(run: Run, tmp_path: Path) -> None:
    assert "is no coordinator's folder" in run("up", written(tmp_path)).error


def test_certificate_must_name_where_the_coordinator_reaches_itself(run: Run, tmp_path: Path) -> None:
    CoordinatorFolder(tmp_path / "coordinator").create("test federation", ["coordinator.example.org"])

    error = run("up", written(tmp_path)).error

    assert "munkey-server renew --host coordinator.example.org --host 127.0.0.1" in error


@pytest.mark.parametrize("address", ["clerk:top-secret@db/ledger", "clerk@db/ledger?password=top-secret"])
def test_databases_password_is_neither_shown_nor_on_a_command_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    CoordinatorFolder(tmp_path / "coordinator").create("test federation", ["127.0.0.1"])
    file = written(tmp_path, f'database = "postgresql://{address}"')

    monkeypatch.setattr(connection, "_CONNECT_SECONDS", 1)
    code, out, err = run("up", file, "--check")
    started = children(CoordinatorFile.read(file), file)

    assert code == 2
    assert "clerk" in out
    assert "cannot be reached" in out
    assert "top-secret" not in out + err + str([child.command for child in started])
    assert started[0].environment["MUNKEY_DATABASE"] == f"postgresql://{address}"
    # What is started reads it there; nobody answers at port 1, which only this address names.
    monkeypatch.setenv("MUNKEY_DATABASE", f"postgresql://{address.replace('db/', '127.0.0.1:1/')}")
    said = run("status").error
    assert "127.0.0.1:1/ledger" in said
    assert "top-secret" not in said


def test_deletion_service_gets_what_the_file_says(tmp_path: Path) -> None:
    more = 'due-days = 20\nlog-format = "json"\n[run]\nrenew-within = 3.5'
    read = CoordinatorFile.read(written(tmp_path, f'metrics = "127.0.0.1:9442"\n{more}'))

    words = serve_command(read)

    assert words[words.index("serve") :] == [
        *["serve", "--coordinator-dir", str(tmp_path / "coordinator")],
        *["--address", "0.0.0.0:9440", "--joining-address", "0.0.0.0:9441"],
        *["--due-days", "20", "--renew-days", "3.5", "--log-format", "json", "--metrics", "127.0.0.1:9442"],
    ]


def test_one_process_may_have_a_unit_of_its_own(run: Run, tmp_path: Path) -> None:
    CoordinatorFolder(tmp_path / "coordinator").create("test federation", ["127.0.0.1"])
    file = written(tmp_path)

    for name in ("deletion-service", "superlink"):
        assert run("up", file, "--only", name, "--check").code == 0
        assert [child.name for child in chosen(children(CoordinatorFile.read(file), file), name)] == [name]
    assert "--only supernode: there is no such process; name deletion-service or superlink" in (
        run("up", file, "--only", "supernode", "--check").error
    )
