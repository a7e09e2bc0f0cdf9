"""How `munkey-client` shows things: progress bars on stderr, tables and JSON of orders on stdout."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from fedmunkey.common.deletions import status_words
from fedmunkey.common.deletions.words import Acknowledgement
from fedmunkey.common.programs import command_line


def progress_bars(*, quiet: bool) -> Progress:
    """Return bars on stderr, which show nothing if `quiet` or if nobody watches."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description:<26}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=quiet or not console.is_terminal,
    )


def shown_in(bars: Progress) -> Callable[[str, int, int], None]:
    """Return what shows how much of how much is done, one bar for each thing that is being done."""
    tasks: dict[str, TaskID] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bars.add_task(what)
        bars.update(tasks[what], completed=done, total=total)

    return show


def counts_table(site: str, counts: Mapping[str, int]) -> Table:
    """Return named counts of one site as a table."""
    table = command_line.plain_table("site", numbers=tuple(counts))
    table.add_row(site, *map(str, counts.values()))
    return table


def orders_table(answers: Iterable[Acknowledgement]) -> Table:
    """Return applied orders as a table."""
    table = command_line.plain_table(
        "request", "state", "guarantee", "epsilon", numbers=("order", "records", "entries", "seconds")
    )
    for answer in answers:
        table.add_row(
            answer.request_id,
            answer.state.value,
            answer.guarantee.value,
            status_words.epsilon_words(answer),
            str(answer.number),
            str(answer.records),
            str(answer.entries),
            f"{answer.seconds:.3f}",
        )
    return table


def order_document(answer: Acknowledgement) -> dict[str, Any]:
    """Return an applied order as the JSON that `--json` prints."""
    document = status_words.answer_document(answer)
    return {name: document[name] for name in document if name != "site"}
