"""What the benchmark found, as a JSON document and as a table for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from fedmunkey.simulations.bench.figure import Group, Measured, number
from fedmunkey.simulations.programs.machine import describe_machine, describe_versions

_FORMAT = 1
_PACKAGES = ("fedmunkey", "torch", "numpy", "faiss-cpu", "flwr", "grpcio")
_MET = {True: "yes", False: "no", None: "-"}


def describe(results: Sequence[Measured], seconds: Mapping[str, float], *, quick: bool) -> dict[str, Any]:
    """Return the document of all figures that were asked for, with the seconds that each group took."""
    return {
        "format": _FORMAT,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": describe_machine(),
        "versions": describe_versions(_PACKAGES),
        "figures": [result.to_json() for result in results],
        "seconds": dict(seconds),
    }


def result_table(results: Iterable[Measured], *, quick: bool) -> Table:
    """Return figure, measured value, unit, target and whether it is met, under the machine's name."""
    machine = describe_machine()
    title = "Benchmark on {processor}, {cores} cores, {memory_gib} GiB, accelerator: {accelerator}".format(**machine)
    if quick:
        title += "\nQuick: sizes are small, so no target is judged"
    table = Table(title=title, title_justify="left")
    for heading in ("figure", "measured", "unit", "target", "met"):
        table.add_column(heading, justify="right" if heading == "measured" else "left")
    for result in results:
        figure = result.figure
        measured = number(result.value) if result.measured else "-"
        table.add_row(figure.title, measured, figure.unit, str(figure.target or "-"), _MET[result.met])
    return table


def group_table(groups: Iterable[Group]) -> Table:
    """Return the figures of each group with their targets, none of them measured."""
    table = Table()
    for heading in ("--only", "figure", "title", "unit", "target"):
        table.add_column(heading)
    for group in groups:
        for figure in group.figures:
            row = (figure.name, figure.title, figure.unit, str(figure.target or "-"))
            table.add_row(group.name, *row, end_section=figure is group.figures[-1])
    return table


def closing_lines(results: Sequence[Measured]) -> list[str]:
    """Say what was not measured and why, and how many of the judged targets are met."""
    reasons: dict[str, list[str]] = {}
    for result in results:
        if not result.measured:
            reasons.setdefault(result.note, []).append(result.figure.name)
    lines = [f"{reason}: {', '.join(names)}" for reason, names in reasons.items()]
    judged = [result for result in results if result.met is not None]
    missed = [result.figure.name for result in judged if not result.met]
    if judged:
        lines.append(f"{len(judged) - len(missed)} of {len(judged)} targets met")
    if missed:
        lines.append(f"missed: {', '.join(missed)}")
    return lines
