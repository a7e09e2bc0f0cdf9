"""The reference of all commands, `docs/commands.md`, rendered from the three programs themselves.

`munkey-sim command-reference` prints it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from enum import Enum

import click
import typer

_INTRODUCTION = """\
# Commands

Everything that can be typed. `COMMAND --help` shows the same in a terminal. Where something is wrong, a command prints
one line that begins with `error:` and ends with exit code 2.

This file is generated from the commands by `make docs`.
"""

_EXAMPLE = "Example: "
_NUMBERS = {click.types.IntRange: "whole number", click.types.FloatRange: "number"}
_KINDS = {"integer": "whole number", "float": "number", "text": "text", "path": "path", "file": "path"}


def every_command(programs: Mapping[str, typer.Typer]) -> Iterator[tuple[str, click.Command]]:
    """Yield each program, and each command of theirs at any depth, with the words that it is called by.

    What `--help` does not show is left out.
    """
    for program, app in programs.items():
        yield from _below(program, typer.main.get_command(app))


def example_of(command: click.Command) -> str:
    """Return the example in a command's help, in one line; empty if it has none."""
    return " ".join((command.help or "").partition(_EXAMPLE)[2].split())


def command_reference(programs: Mapping[str, typer.Typer]) -> str:
    """Return the text of `docs/commands.md`: a section for each program, a part for each command."""
    return "\n".join([_INTRODUCTION, *(_part(words, command) for words, command in every_command(programs))])


def _below(words: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            if not inner.hidden:
                yield from _below(f"{words} {name}", inner)


def _part(words: str, command: click.Command) -> str:
    """Return what is said of one command: what it does, an example, its arguments and options."""
    text = inspect.cleandoc((command.help or "").partition(_EXAMPLE)[0]).strip()
    lines = [f"{'#' * (1 + len(words.split()))} {words}\n", f"{text}\n"]
    if isinstance(command, click.Group):
        lines.append(
            f"Commands: {', '.join(f'`{name}`' for name, inner in command.commands.items() if not inner.hidden)}.\n"
        )
    if example := example_of(command):
        lines.append(f"```sh\n{example}\n```\n")
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    if shown:
        lines += ["| | value | default | meaning |\n| --- | --- | --- | --- |", *map(_row, shown), ""]
    return "\n".join(lines)


def _row(parameter: click.Parameter) -> str:
    names = [*parameter.opts, *parameter.secondary_opts]
    if isinstance(parameter, click.Argument):
        names = [parameter.metavar or (parameter.name or "").upper()]
    cells = [", ".join(f"`{name}`" for name in names), _values(parameter), _default(parameter)]
    meaning = " ".join((getattr(parameter, "help", None) or "").split())
    return f"| {' | '.join([*cells, meaning.replace('|', '/')])} |"


def _values(parameter: click.Parameter) -> str:
    """Say what may be given: names, a range, or what kind of value; nothing for a flag."""
    kind = parameter.type
    if getattr(parameter, "is_flag", False):
        return ""
    if isinstance(kind, click.Choice):
        return ", ".join(f"`{_word(choice)}`" for choice in kind.choices)
    if isinstance(kind, click.DateTime):
        return "date"
    if isinstance(kind, click.IntRange | click.FloatRange):
        limits = [f"{sign} {limit}" for sign, limit in ((">=", kind.min), ("<=", kind.max)) if limit is not None]
        return f"{_NUMBERS[type(kind)]} {' and '.join(limits)}"
    return _KINDS.get(kind.name, kind.name)


def _default(parameter: click.Parameter) -> str:
    default = parameter.default
    if parameter.required:
        return "required"
    if default in (None, False, "") or callable(default):
        return ""
    values = default if isinstance(default, list | tuple) else [default]
    return ", ".join(f"`{_word(value)}`" for value in values)


def _word(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value.value if isinstance(value, Enum) else value)
