"""What a person sees while a simulation runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from fedmunkey.simulations.deletions import CarriedOut


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
        self._current = TaskID(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Where nothing was shown, rich would still end it with an empty line.
        if self._bars.tasks:
            self._bars.stop()

    @classmethod
    def quiet(cls) -> Progress:
        """Return one that shows nothing."""
        return cls(Console(quiet=True))

    @contextlib.contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar; the function that is yielded takes the number of steps done since its last call."""
        self._bars.start()
        task = self._bars.add_task(what, total=total, note="")
        self._current = task
        yield lambda more: self._bars.update(task, advance=more)

    def round(self, event: dict[str, Any]) -> None:
        """Show how a round ended."""
        mean = event["mean"]
        note = f"test accuracy {100 * mean.get('test-accuracy', float('nan')):.1f}%"
        self._bars.update(self._current, note=note)
        for site, reason in event["failures"].items():
            self._print(f"round {event['number']}: {site} could not take part: {reason}")

    def waiting(self, event: dict[str, Any]) -> None:
        """Show that training waits, and for what."""
        self._print(f"waiting: {event['reason']}")

    def deletion(self, done: CarriedOut) -> None:
        """Show a deletion that was carried out."""
        requests = f"{len(done.statuses)} request{'s' if len(done.statuses) > 1 else ''}"
        guarantee = f" ({done.guarantee})" if done.guarantee else ""
        self._print(
            f"before round {done.deletion.planned.round}: {done.deletion.planned} over gRPC: "
            f"{requests}, {done.entries} entries gone in {sum(done.seconds):.2f} s{guarantee}"
        )

    def _print(self, line: str) -> None:
        # Where lines end is left to the terminal: a path or an address that is broken in two cannot be copied.
        self._console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)
