"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import click
import pytest
import typer

from fedmunkey.common.programs.options import takes_options


@dataclass(frozen=True)
class Shared:
    """Two options."""

    name: Annotated[str, typer.Option(help="Whose.")]
    times: Annotated[int, typer.Option("--times", "-t", help="How often.")] = 1


@takes_options(Shared)
def greet(file: Annotated[str, typer.Argument(help="Where to.")], shared: Shared, loud: bool = False) -> None:
    """Greet."""
    typer.echo(f"{file} {shared.name} {shared.times} {loud}")


def typed(*words: str) -> click.Command:
    app = typer.Typer(add_completion=False)
    app.command()(greet)
    command = typer.main.get_command(app)
    command.main(list(words), standalone_mode=False)
    return command


def test_fields_are_options_in_the_place_of_the_group() -> None:
    command = typed("file", "--name", "a")

    assert [parameter.name for parameter in command.params] == ["file", "name", "times", "loud"]
    assert command.help == "Greet."


def test_command_is_given_the_group(capsys: pytest.CaptureFixture[str]) -> None:
    typed("file", "--name", "a", "-t", "3", "--loud")
    greet(file="here", name="b")

    assert capsys.readouterr().out.splitlines() == ["file a 3 True", "here b 1 False"]
