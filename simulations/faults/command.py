"""`munkey-sim faults`: deletions while processes are killed, disks are full and files are put back from copies."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.programs import command_line
from fedmunkey.simulations.faults.driver import FaultRun, run
from fedmunkey.simulations.faults.report import closing_line, document, table
from fedmunkey.simulations.faults.run_ledger import check_database

BROKEN = 1
"""The exit code if a promise was not kept."""


def faults(
    deletions: Annotated[int, typer.Option(min=1, help="Requests to forget that are made.")] = 200,
    kills: Annotated[int, typer.Option(min=0, help="Processes that are killed meanwhile.")] = 20,
    sites: Annotated[int, typer.Option(min=1, max=50, help="Sites of the federation.")] = 3,
    database: Annotated[
        str, typer.Option(help="postgresql://user@host/database: the ledger is there, and two services share it.")
    ] = "",
    seed: Annotated[int, typer.Option(help="What happens is drawn from it; the moment is up to the machine.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Folder of this run; runs/faults-TIME by default.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep ledger, key stores and logs of a clean run too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON instead of tables.")] = False,
) -> None:
    """Run a federation of real processes under faults, and check that no deletion is lost and nothing comes back.

    A deletion service, agents and training run as processes of their own. They are killed at random times and at
    failpoints, connections are cut, slowed down and swallowed, requests come twice and out of order, clocks jump, disks
    are full, databases locked and damaged. Ledger and key stores are restored from copies, stores are made anew, keys
    are replaced, and requests expire before they are heard again. Then ledger and key stores are compared with a plain
    model. The exit code is 1 if a promise was not kept; what the processes have left is then kept in the output folder.

    Example: munkey-sim faults --deletions 2000 --kills 200 --output runs/faults
    """
    folder = output or Path("runs") / f"faults-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidSetting(f"--output {folder}: is there already and not an empty folder; name another")
    if database:
        check_database(database)
    work = folder.absolute() / "federation"
    work.mkdir(parents=True)
    with _bar(deletions, quiet=as_json) as progress:
        outcome = run(FaultRun(deletions, kills, sites, seed, work, database=database), progress)
    found = document(outcome, command_line.typed())
    (folder / "report.json").write_text(json.dumps(found, indent=2) + "\n")
    if outcome.findings.clean and not keep:
        shutil.rmtree(work)
    if as_json:
        command_line.print_json(found)
    else:
        command_line.print_table(table(outcome))
        sys.stdout.write(f"{closing_line(outcome)}\nreport: {folder / 'report.json'}\n")
    if not outcome.findings.clean:
        raise typer.Exit(BROKEN)


@contextmanager
def _bar(total: int, *, quiet: bool) -> Iterator[Callable[[int, str], None]]:
    """Show how many requests are done, and how much time is left."""
    bars = Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet,
    )
    with bars:
        task = bars.add_task("deletions", total=total)
        yield lambda more, what: bars.update(task, advance=more, description=what)
