"""What the three command lines share: one line for an error, JSON for programs, tables that cut nothing off."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from typer.core import TyperGroup

from fedmunkey.common.errors import EXIT_CODE, FedmunkeyError
from fedmunkey.common.failpoints import arm_from_environment
from fedmunkey.common.service.foreign_text import printable

INTERRUPTED = 130


def application(summary: str, group: type[TyperGroup] | None = None) -> typer.Typer:
    """Make an empty command line; `summary` is the first line of its help, `group` has commands of its own."""
    return typer.Typer(
        cls=group,
        help=summary,
        # Without one, typer takes a group for the one command that it knows of.
        callback=None if group is None else _begin,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )


def run(app: typer.Typer) -> None:
    """Run a command line and exit.

    The exit code is 0, `common.errors.EXIT_CODE` after `error: ...` on stderr for anything that the person at the
    keyboard can put right, or 130 if it was interrupted.
    """
    command = typer.main.get_command(app)
    try:
        arm_from_environment()
        # Outside of its standalone mode, typer raises what it would otherwise print on several lines.
        code = command.main(prog_name=Path(sys.argv[0]).name, standalone_mode=False)
        sys.stdout.flush()
    except FedmunkeyError as error:
        _fail(str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        # Where rich is at hand, the help has been printed by now and the message is empty.
        sys.stdout.write(error.format_message())
        sys.exit(EXIT_CODE)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else command.name
        _fail(f"{error.format_message().rstrip('.')}; see {where} --help")
    except click.ClickException as error:
        _fail(error.format_message())
    except (KeyboardInterrupt, click.Abort):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has seen enough; keep Python from complaining when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def typed() -> str:
    """Return the command line of this process as it can be typed again."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    # Piece by piece: as one text, a list of all rows of a large file takes far more memory than the list.
    for piece in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(value):
        sys.stdout.write(piece)
    sys.stdout.write("\n")


def plain_table(*words: str, numbers: tuple[str, ...] = ()) -> Table:
    """Return an empty table with columns of words, then columns of numbers; nothing in it is ever wrapped."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in words:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, no_wrap=True, justify="right")
    return table


def filled_table(words: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table as `plain_table`, with rows."""
    table = plain_table(*words, numbers=tuple(numbers))
    for row in rows:
        table.add_row(*row)
    return table


def show(document: Any, as_json: bool, *otherwise: Table | str) -> None:
    """Print a document as JSON, or else what says the same to people: tables, and lines of text."""
    if as_json:
        print_json(document)
        return
    for shown in otherwise:
        if isinstance(shown, Table):
            print_table(shown)
        else:
            typer.echo(shown)


def print_table(table: Table) -> None:
    """Print a table on stdout, wider than the terminal if it must be: an id that is cut off is of no use."""
    console = Console(markup=False, highlight=False, emoji=False)
    natural = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
    if natural > console.width:
        console = Console(markup=False, highlight=False, emoji=False, width=natural)
    console.print(table)


def finite(number: float) -> float | None:
    """Return a number as JSON can hold it: None if it is infinite."""
    return number if math.isfinite(number) else None


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"{Path(sys.argv[0]).name} {version('fedmunkey')}")
        raise typer.Exit


def _begin(
    _: Annotated[
        bool,
        typer.Option("--version", help="Show the version and end.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Do nothing before a command."""


def _fail(message: str) -> None:
    line = printable(" ".join(message.split()))
    sys.stderr.write(f"error: {line}\n")
    sys.exit(EXIT_CODE)
