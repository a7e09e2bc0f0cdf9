"""`munkey-sim bench`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.programs import command_line
from fedmunkey.simulations.bench.document import closing_lines, describe, group_table, result_table
from fedmunkey.simulations.bench.figure import Bench, Measured
from fedmunkey.simulations.bench.registry import choose
from fedmunkey.simulations.programs.progress import Progress


def bench(
    only: Annotated[list[str] | None, typer.Option(help="A group of figures, see --list. Repeatable.")] = None,
    list_figures: Annotated[bool, typer.Option("--list", help="List the figures and measure nothing.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: seconds, but no target is judged.")] = False,
    output: Annotated[Path, typer.Option(help="Where the figures are written.")] = Path("bench.json"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the document as JSON instead of a table.")] = False,
) -> None:
    """Measure speed, memory and scale on this machine, each as a ratio within one run or as a reported size.

    Example: munkey-sim bench --only packed-ensemble --only neighbour-search
    """
    groups = choose(only or [])
    if list_figures:
        command_line.print_table(group_table(groups))
        return
    if output.is_dir() or not output.parent.is_dir():
        raise InvalidSetting(f"--output {output}: must be a file in a folder that is there")
    results: list[Measured] = []
    seconds = {}
    with Progress.quiet() if as_json else Progress(Console(stderr=True)) as progress:
        for group in groups:
            start = time.perf_counter()
            results += group.run(Bench(progress, quick))
            seconds[group.name] = time.perf_counter() - start
            # After each group, so that nothing is lost if a later one is interrupted.
            document = describe(results, seconds, quick=quick)
            output.write_text(json.dumps(document, indent=2) + "\n")
    if as_json:
        command_line.print_json(document)
        return
    command_line.print_table(result_table(results, quick=quick))
    sys.stdout.writelines(f"{line}\n" for line in [*closing_lines(results), f"figures: {output}"])
