"""What is not typed comes from the file of settings that a command finds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from fedmunkey.common.errors import FedmunkeyError, InvalidSetting
from fedmunkey.common.programs import configured
from fedmunkey.common.programs.configured import Configuration


def _read(path: Path) -> Mapping[str, Any]:
    name, port = path.read_text().split()
    return {"folder": path.parent / name, "service": f"host:{port}", "identity": path.parent / "identity"}


MACHINE = Configuration(
    "machine.toml",
    "TEST_MACHINE_FILE",
    _read,
    "folder",
    {"folder": ("asking",)},
    lesser={"identity": "folder"},
    replacing=("service",),
)


def _show(
    folder: Annotated[Path | None, typer.Option()] = None,
    service: Annotated[str, typer.Option()] = "default:1",
    identity: Annotated[Path | None, typer.Option()] = None,
    asking: Annotated[str | None, typer.Option()] = None,
) -> None:
    typer.echo(f"{folder} {service} {identity} {asking}")


def _start(file: Annotated[Path, typer.Argument()]) -> None:
    typer.echo(f"{file}")


def _call(identity: Annotated[Path, typer.Option()], service: Annotated[str | None, typer.Option()] = None) -> None:
    typer.echo(f"{identity} {service}")


@pytest.fixture
def type_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(configured, "SYSTEM_FOLDER", tmp_path / "etc")
    app = typer.Typer()
    for name, command in (("show", _show), ("start", _start), ("call", _call)):
        app.command(name, cls=MACHINE.command())(command)

    def run(*words: str) -> tuple[str, str]:
        typer.main.get_command(app).main(list(words), standalone_mode=False)
        said = capsys.readouterr()
        return said.out.strip(), said.err.strip()

    return run


def test_file_where_the_command_is_typed_is_found_and_named(type_: Any, tmp_path: Path) -> None:
    (tmp_path / "machine.toml").write_text("a 5")

    assert type_("show") == ("a host:5 None None", f"settings: {tmp_path}/machine.toml")
    assert type_("start") == (f"{tmp_path}/machine.toml", f"settings: {tmp_path}/machine.toml")
    # Where nobody is called by default, nobody is.
    assert type_("call")[0] == "identity None"


def test_option_is_before_environment_and_that_before_files(
    type_: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, name in (("etc", "system"), ("other", "named")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "machine.toml").write_text(f"{name} 1")

    assert type_("show")[0].startswith("etc/system ")
    (tmp_path / "machine.toml").write_text("here 1")
    assert type_("show")[0].startswith("here ")
    monkeypatch.setenv("TEST_MACHINE_FILE", "other/machine.toml")
    shown, said = type_("show")
    assert shown.startswith("other/named ")
    assert said == f"settings: {tmp_path}/other/machine.toml"
    # What is named where the command is typed need not be said.
    assert type_("show", "--config", "machine.toml") == ("here host:1 None None", "")


def test_what_is_typed_counts(type_: Any, tmp_path: Path) -> None:
    (tmp_path / "machine.toml").write_text("a 5")

    assert type_("show", "--service", "typed:2")[0] == "a typed:2 None None"
    assert type_("show", "--folder", "a", "--identity", "i")[0] == "a host:5 i None"
    # Another folder is another machine's, and whoever says who asks may ask from any.
    assert type_("show", "--folder", "b") == ("b default:1 None None", "")
    assert type_("show", "--asking", "officer")[0] == "None host:5 None officer"
    assert type_("start", "x.toml") == ("x.toml", "")


def test_nothing_to_find_says_what_to_name(type_: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert type_("show") == ("None default:1 None None", "")
    with pytest.raises(InvalidSetting, match=r"there is no machine\.toml here or in .*; name the file, or set TEST_MA"):
        type_("start")
    monkeypatch.setenv("TEST_MACHINE_FILE", "nix.toml")
    with pytest.raises(FedmunkeyError, match=r"TEST_MACHINE_FILE = nix\.toml: there is no such file"):
        type_("show")
