"""Commands whose modules are imported when they are asked for."""

from __future__ import annotations

import click
import pytest
import typer

from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.lazy_commands import LazyCommands, lazy_group

PLACES = {"secret": "fedmunkey.client.commands.secret:secret", "lost": "fedmunkey.client.commands.no_such_module:lost"}


def test_command_is_made_when_it_is_asked_for_and_once() -> None:
    commands = LazyCommands(PLACES, {"old": click.Command("old")})

    assert list(commands) == ["secret", "lost", "old"]
    assert len(commands) == 3
    assert "Example:" in (commands["secret"].help or "")
    assert commands["secret"] is commands["secret"]
    with pytest.raises(ModuleNotFoundError):
        commands["lost"]
    with pytest.raises(KeyError):
        commands["other"]


def test_list_of_commands_is_made_without_importing_them() -> None:
    commands = LazyCommands(PLACES, {"old": click.Command("old", help="An old one.")})

    shown, old = commands.listed("secret"), commands.listed("old")
    assert shown is not None
    assert old is not None
    assert shown.get_short_help_str(100) == commands["secret"].get_short_help_str(100)
    assert old.help == "An old one."
    assert commands.listed("other") is None
    with pytest.raises(ModuleNotFoundError):
        commands.listed("lost")


def test_command_can_be_put_in_and_taken_out() -> None:
    commands = LazyCommands(PLACES, {})
    commands["new"] = click.Command("new")
    del commands["lost"]

    assert list(commands) == ["secret", "new"]


def test_group_lists_commands_and_names_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    app = command_line.application("A summary.", lazy_group({"secret": PLACES["secret"]}))
    app.add_typer(typer.Typer(), name="others")
    group = typer.main.get_command(app)

    group.main(["--help"], prog_name="program", standalone_mode=False)
    assert "secret" in capsys.readouterr().out
    with pytest.raises(click.UsageError, match="No such command 'secrt'"):
        group.main(["secrt"], prog_name="program", standalone_mode=False)
