"""What a person sees while a simulation runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from simulations.deletions import CarriedOut


class Progress:
    """Bars and lines on a console; a quiet one shows nothing.

    Parameters
    ----------
    console : Console
        Where to; stderr, so that stdout stays free for results.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = RichProgress(
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._current = None

    @classmethod
    def quiet(cls) -> Progress:
        """Return one that shows nothing."""
        return cls(Console(quiet=True))

    @contextlib.contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar; the function that is yielded takes the number of steps done since its last call."""
        with self._bars as bars:
            self._current = bars.add_task(what, total=total, note="")
            yield lambda more: bars.update(self._current, advance=more)

    def round(self, event: dict[str, Any]) -> None:
        """Show how a round ended."""
        mean = event["mean"]
        note = f"test accuracy {100 * mean.get('test-accuracy', float('nan')):.1f}%"
        self._bars.update(self._current, note=note)
        for reason in event["failures"].values():
            self._console.print(f"round {event['number']}: {reason}", markup=False)

    def deletion(self, done: CarriedOut) -> None:
        """Show a deletion that was carried out."""
        requests = len(done.statuses)
        self._console.print(
            f"before round {done.deletion.planned.round}: {done.deletion.planned} over gRPC: "
            f"{requests} request{'s' if requests > 1 else ''}, {done.entries} entries gone in {done.seconds:.2f} s",
            markup=False,
            highlight=False,
        )
