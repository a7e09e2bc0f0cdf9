"""`munkey-sim report`: the pages of a report, made again from its JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.simulations.reporting.document import read_document
from fedmunkey.simulations.reporting.files import write_pages


def report(
    file: Annotated[Path, typer.Argument(help="The report.json of a run, an audit or a comparison.")],
    output: Annotated[
        Path | None, typer.Option(help="Folder for report.html and report.md; that of the file by default.")
    ] = None,
) -> None:
    """Make the HTML page and the Markdown of a run, an audit or a comparison again, from its report.json alone.

    Example: munkey-sim report runs/audit/report.json --output pages
    """
    paths = write_pages(read_document(file), output or file.parent)
    for path in paths.values():
        sys.stdout.write(f"{path}\n")
