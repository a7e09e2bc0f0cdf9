"""Commands whose modules are imported when they are typed, so that none waits for what only another one needs.

A list of commands is made of their docstrings, which are read and not imported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import typer
from click.shell_completion import CompletionItem
from typer.core import TyperCommand, TyperGroup


class LazyCommands(MutableMapping[str, click.Command]):
    """Commands by name; each is made when it is first asked for.

    Places say where each command's function is, `package.module:function`, in the order in which they are listed;
    others are there already and are listed last. `kinds` are the classes of those that are more than a plain command. A
    function that is the callback of its module's `application` stands for all commands of that.
    """

    def __init__(
        self,
        places: Mapping[str, str],
        others: Mapping[str, click.Command],
        kinds: Mapping[str, type[TyperCommand]] | None = None,
    ) -> None:
        self._places = dict(places)
        self._made = dict(others)
        self._kinds = kinds or {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._made:
            module, _, function = self._places[name].partition(":")
            found = import_module(module)
            group = getattr(found, "application", None)
            if isinstance(group, typer.Typer):
                self._made[name] = typer.main.get_command(group)
                self._made[name].name = name
            else:
                single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
                single.command(name, cls=self._kinds.get(name))(getattr(found, function))
                self._made[name] = typer.main.get_command(single)
        return self._made[name]

    def listed(self, name: str) -> click.Command | None:
        """Return what a list shows of a command; None if there is none."""
        if name in self._made or name not in self._places:
            return self._made.get(name)
        return click.Command(name, help=_docstring(self._places[name]))

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        self._places.pop(name, None)
        self._made.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._places, *self._made]))

    def __len__(self) -> int:
        return len({*self._places, *self._made})


def _docstring(place: str) -> str:
    """Return the docstring of a function, `package.module:function`, without importing the module."""
    module, _, function = place.partition(":")
    found = find_spec(module)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"no module named {module!r}")
    for node in ast.parse(Path(found.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return ast.get_docstring(node) or ""
    raise AttributeError(f"module {module!r} has no function {function!r}")


def lazy_group(
    places: Mapping[str, str],
    aliases: Mapping[str, str] | None = None,
    kinds: Mapping[str, type[TyperCommand]] | None = None,
) -> type[TyperGroup]:
    """Return the class of a group that has the commands at some places, for `typer.Typer(cls=...)`.

    An alias is another name of a command, which no help lists. `kinds` are as for `LazyCommands`.
    """
    other_names = aliases or {}

    class LazyGroup(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            self.commands = self._lazy = LazyCommands(places, self.commands, kinds)
            self._listing = False

        def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
            self._listing = True
            try:
                return super().shell_complete(ctx, incomplete)
            finally:
                self._listing = False

        def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            self._listing = True
            try:
                super().format_help(ctx, formatter)
            finally:
                self._listing = False

        def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (the signature is click's)
            return list(self._lazy)

        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            if self._listing:
                return self._lazy.listed(cmd_name)
            return super().get_command(ctx, other_names.get(cmd_name, cmd_name))

    return LazyGroup
