"""What happens in a run, a line for each event, shown as it comes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from fedmunkey.common.errors import count_of
from fedmunkey.common.service.foreign_text import printable
from fedmunkey.server.rounds.run_record import FINISHED, LEFT_OUT, RESUMED, ROUND, STOPPED, WAITING, read_events

_LOOK_SECONDS = 0.2


class EventLines:
    """Shows the events of a run's folder behind the first `seen`, from a thread, until the context ends.

    Other lines go between them by `write`. The run has so many rounds.
    """

    def __init__(self, folder: Path, seen: int, rounds: int, shown: TextIO) -> None:
        self._folder = folder
        self._seen = seen
        self._rounds = rounds
        self._shown = shown
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="run-events", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def write(self, line: str) -> None:
        """Show a line."""
        with self._lock:
            self._shown.write(f"{line}\n")
            self._shown.flush()

    def _look(self) -> None:
        ended = False
        while not ended:
            ended = self._ended.wait(_LOOK_SECONDS)
            events = read_events(self._folder)
            for event in events[self._seen :]:
                for line in event_lines(event, self._rounds):
                    self.write(line)
            self._seen = max(self._seen, len(events))


def event_lines(event: Mapping[str, Any], rounds: int) -> list[str]:
    """Return what is shown of an event of a run of so many rounds."""
    kind = event["event"]
    if kind == ROUND:
        return _round_lines(event, rounds)
    if kind in (WAITING, STOPPED):
        return [f"{kind}: {printable(event['reason'])}"]
    return [str(kind)] if kind in (FINISHED, RESUMED) else []


def _round_lines(event: Mapping[str, Any], rounds: int) -> list[str]:
    accuracy = event["mean"].get("test-accuracy")
    sites, saying = len(event["sites"]), len(event["evaluation"])
    some = f" at the {saying} that told theirs" if saying < sites else ""
    shown = "" if accuracy is None else f", test accuracy {100 * accuracy:.1f}%{some}"
    if LEFT_OUT in event["mean"]:
        shown = f", left-out accuracy {100 * event['mean'][LEFT_OUT]:.1f}%{shown}"
    seconds = f", {event['seconds']:.1f} s" if event.get("seconds") else ""
    failed = [printable(f"  {site} did not take part: {reason}") for site, reason in sorted(event["failures"].items())]
    return [f"round {event['number']} of {rounds}: {count_of(sites, 'site')}{shown}{seconds}", *failed]
