"""Commands act on what was configured: what is not typed comes from the machine's file of settings, which they find.

The file is the one that `--config` names, or an environment variable, or it lies where the command is typed or in
/etc/fedmunkey. A command that has found one, and took something from it, says which.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from typer.core import TyperCommand, TyperOption

from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.programs.log_format import LogFormat, said_in_json

SYSTEM_FOLDER = Path("/etc/fedmunkey")

_CONFIG = "config"
_FILE = "file"
_UP = "up"
"""The command whose lines are a log's."""


@dataclass(frozen=True)
class Configuration:
    """A program's file of settings, and what commands take from it.

    Attributes
    ----------
    file_name : str
        What the file is called where it is found.
    variable : str
        The environment variable that names it.
    read : callable
        Returns the values that a file at some path gives to parameters of commands, by the parameters' names. Raises
        `InvalidSetting` if the file cannot be used.
    folder : str
        The parameter that names the machine's folder: nothing is taken from the file where another one is typed.
    instead : Mapping
        Parameters, each with others of which none may be typed if it is to be taken from the file.
    lesser : Mapping
        Parameters that are not taken from the file where a command has another one as well, which says the same.
    replacing : tuple
        Parameters that are only taken from the file where a command would have a value without it.
    """

    file_name: str
    variable: str
    read: Callable[[Path], Mapping[str, Any]]
    folder: str
    instead: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lesser: Mapping[str, str] = field(default_factory=dict)
    replacing: tuple[str, ...] = ()

    def find(self) -> Path | None:
        """Return the file that is meant where none is named; None if there is none.

        Raises `InvalidSetting` if the environment names one that is not there.
        """
        if named := os.environ.get(self.variable):
            if not Path(named).is_file():
                raise InvalidSetting(f"{self.variable} = {named}: there is no such file; name another, or unset it")
            return Path(named).absolute()
        places = (Path.cwd(), SYSTEM_FOLDER)
        return next((place / self.file_name for place in places if (place / self.file_name).is_file()), None)

    def command(self) -> type[TyperCommand]:
        """Return the class of commands that take what is not typed from the file, for `typer`'s `cls`."""
        return type("ConfiguredCommand", (_ConfiguredCommand,), {"configuration": self})


class _ConfiguredCommand(TyperCommand):
    configuration: Configuration

    def __init__(self, *words: Any, **attributes: Any) -> None:
        super().__init__(*words, **attributes)
        if not any(parameter.name == _FILE for parameter in self.params):
            named, variable = self.configuration.file_name, self.configuration.variable
            self.params.append(
                TyperOption(
                    param_decls=["--config"],
                    type=click.Path(exists=True, dir_okay=False, path_type=Path),
                    help=f"File of settings, for what is not typed; {variable}, or {named} here or in {SYSTEM_FOLDER} "
                    "by default.",
                    expose_value=False,
                )
            )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse what was typed, and fill in from the file what was not."""
        if ctx.resilient_parsing or "--help" in args:
            return super().parse_args(ctx, args)
        typed, *_ = self.make_parser(ctx).parse_args(list(args))
        # What was not typed is None, or another object that stands for nothing.
        typed = {name: value for name, value in typed.items() if isinstance(value, str | list | tuple | bool) and value}
        found = self._fill(ctx, typed)
        left = super().parse_args(ctx, args)
        taken = [name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.DEFAULT_MAP]
        if found is not None and taken:
            _say(found, in_json=ctx.info_name == _UP)
        return left

    def _fill(self, ctx: click.Context, typed: Mapping[str, Any]) -> Path | None:
        """Have what the file says be the default of what was not typed; return the file if it was found, not named."""
        own = {parameter.name: parameter for parameter in self.params if parameter.name}
        path = Path(typed[_CONFIG]) if _CONFIG in typed else self.configuration.find()
        if path is None:
            if _FILE in own and _FILE not in typed:
                known = self.configuration
                raise InvalidSetting(
                    f"there is no {known.file_name} here or in {SYSTEM_FOLDER}; name the file, or set {known.variable}"
                )
            return None
        if _FILE in own:
            ctx.default_map = {_FILE: str(path)}
            return path
        values = self.configuration.read(path)
        folder = self.configuration.folder
        if folder in typed and Path(typed[folder]).absolute() != Path(values[folder]).absolute():
            return None
        ctx.default_map = {
            name: _as_typed(value)
            for name, value in values.items()
            if name in own and name not in typed and value is not None and self._takes(own[name], own, typed)
        }
        return None if _CONFIG in typed else path

    def _takes(self, parameter: click.Parameter, own: Mapping[str, Any], typed: Mapping[str, Any]) -> bool:
        """Return whether a parameter that was not typed is to be taken from the file."""
        known, name = self.configuration, parameter.name or ""
        said = any(other in typed for other in known.instead.get(name, ())) or known.lesser.get(name) in own
        has_value = parameter.required or parameter.default is not None
        return not said and (has_value or name not in known.replacing)


def _as_typed(value: object) -> str:
    """Return a value as somebody would type it here: paths below this folder without what leads to it."""
    here = Path.cwd()
    return str(value.relative_to(here)) if isinstance(value, Path) and value.is_relative_to(here) else str(value)


def _say(found: Path, *, in_json: bool) -> None:
    """Say which file was found; in JSON, if it may be, where the file has all log lines so."""
    line = f"settings: {found}"
    if in_json:
        with contextlib.suppress(OSError, ValueError):
            if tomllib.loads(found.read_text(encoding="utf-8")).get("log-format") == LogFormat.JSON:
                line = said_in_json(__name__, line, utc_now())
    sys.stderr.write(f"{line}\n")
