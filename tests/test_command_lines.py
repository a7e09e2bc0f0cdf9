"""What holds for every command of the three command lines."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
import pytest
import typer

from fedmunkey.client.cli import app as client_app
from fedmunkey.server.cli import app as server_app
from fedmunkey.simulations.cli import app as simulation_app

ROOT = Path(__file__).parents[1]
APPS = {"munkey-client": client_app, "munkey-server": server_app, "munkey-sim": simulation_app}


def commands(program: str) -> dict[str, click.Command]:
    group = typer.main.get_command(APPS[program])
    assert isinstance(group, click.Group)
    return dict(group.commands)


EVERY_COMMAND = [(program, name) for program in APPS for name in commands(program)]


@pytest.mark.parametrize(("program", "name"), EVERY_COMMAND)
def test_help_shows_an_example_that_can_be_typed(program: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = commands(program)[name]
    with pytest.raises(click.exceptions.Exit) as ended:
        command.make_context(f"{program} {name}", ["--help"])
    shown = " ".join(capsys.readouterr().out.split())

    assert ended.value.exit_code == 0
    _, found, example = (command.help or "").partition("Example: ")
    words = shlex.split(example)
    assert found
    assert f"Example: {' '.join(example.split())}" in shown
    assert words[:2] == [program, name]
    command.make_context(f"{program} {name}", words[2:])


@pytest.mark.parametrize(("program", "name"), EVERY_COMMAND)
def test_every_option_has_help(program: str, name: str) -> None:
    options = [parameter for parameter in commands(program)[name].params if isinstance(parameter, click.Option)]

    assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize(("program", "name"), EVERY_COMMAND)
def test_readme_names_the_command(program: str, name: str) -> None:
    assert f"{program} {name}" in (ROOT / "README.md").read_text()
