"""Options that several programs share, and groups of options that several commands do."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

ServiceOption = Annotated[str, typer.Option("--service", help="Address of the deletion service, host:port.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
SettingOption = Annotated[
    list[str] | None, typer.Option("--set", "-s", help="A setting as key=value, see docs/settings.md. Repeatable.")
]
EncoderOption = Annotated[str | None, typer.Option("--encoder", help="Short for --set encoder=NAME.")]
WeightsOption = Annotated[str | None, typer.Option("--weights", help="Short for --set encoder-weights=FILE.")]


def takes_options(kind: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options that are the fields of a dataclass, in the place of its one parameter of that type."""
    fields = inspect.signature(kind, eval_str=True).parameters

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        """Return the command as typer sees it: each field an option of its own."""
        typed: list[inspect.Parameter] = []
        group = ""
        for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
            if parameter.annotation is kind:
                group = name
            typed += fields.values() if parameter.annotation is kind else [parameter]

        @wraps(command)
        def run(**values: Any) -> None:
            given = {name: values.pop(name) for name in fields if name in values}
            command(**{group: kind(**given)}, **values)

        # A keyword has its place among the options whether or not it has a default.
        words = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in typed]
        run.__signature__ = inspect.Signature(words)  # type: ignore[attr-defined]
        return run

    return decorate
