"""What a person sees while a simulation runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress


class Progress:
    """Bars and lines on a console, that of stderr, so that stdout stays free for results; a quiet one shows nothing."""

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
            self.say(f"round {event['number']}: {site} could not take part: {reason}")

    def waiting(self, event: dict[str, Any]) -> None:
        """Show that training waits, and for what."""
        self.say(f"waiting: {event['reason']}")

    def say(self, line: str) -> None:
        """Show a line above the bars."""
        # Where lines end is left to the terminal: a path or an address that is broken in two cannot be copied.
        self._console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)
