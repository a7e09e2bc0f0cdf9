"""What a run leaves behind: one JSON line for each event, and the best and last shared weights."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedmunkey.common.private_files import replace_file

EVENTS = "events.jsonl"
ROUND = "round"
WAITING = "waiting"
FINISHED = "finished"
STOPPED = "stopped"
LAST = "last.safetensors"
BEST = "best.safetensors"
SELECTION = "selection-accuracy"
"""The metric by which the best weights are chosen."""


@dataclass
class RoundRecord:
    """One finished round, numbered from 1.

    `sites` are those that took its weights over; each decides what it tells of them.
    `training` and `evaluation` hold each site's metrics, of which what is not a number, such as the loss of a site
    without records, becomes null; `mean` those of evaluation averaged over sites. `failures` gives the reason of each
    site that answered with an error; one that never answered otherwise has its node's number. Bytes are those of shared
    weights sent to the sites (down) and received from them (up), seconds from the round's opening to its end.
    `release_seconds` are those of weights that are solved for: from when the round is open, all deletions before it
    carried out, until every site has said that it has the weights; None where weights are trained.
    """

    number: int
    sites: list[str] = field(default_factory=list)
    training: dict[str, dict[str, float]] = field(default_factory=dict)
    evaluation: dict[str, dict[str, float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    mean: dict[str, float] = field(default_factory=dict)
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: float = 0.0
    release_seconds: float | None = None


class RunRecord:
    """Writes a run's events and weights into a folder.

    The folder is made if it is not there. Of an earlier run's events, those of rounds before the first one of this run
    stay. JSON-ready facts go beside the weights.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], *, first_round: int = 1) -> None:
        self._folder = folder
        self._facts = facts
        scores = [event["mean"].get(SELECTION) for event in keep_rounds(folder, before=first_round)]
        self._best = max((score for score in scores if score is not None), default=-math.inf)

    def about(self, record: RoundRecord) -> dict[str, Any]:
        """Return the facts about a round's weights."""
        return {**self._facts, "round": record.number, "mean": _finite(record.mean)}

    def note_round(self, record: RoundRecord, write: Callable[[Path], None], *, score: float | None) -> None:
        """Write a round's metrics and weights; `write` is given each path at which the weights shall be.

        The best have the highest score so far; without any, since nothing may be chosen by, the last are the best.
        """
        write(self._folder / LAST)
        if score is None or score > self._best:
            self._best = -math.inf if score is None else score
            write(self._folder / BEST)
        self._append(ROUND, asdict(record))

    def note_waiting(self, reason: str) -> None:
        """Write that training waits, and for what; a later event says how the waiting ended."""
        self._append(WAITING, {"reason": reason})

    def note_finished(self) -> None:
        """Write that the run came to its end."""
        self._append(FINISHED, {})

    def note_stopped(self, reason: str) -> None:
        """Write why the run stopped before its end."""
        self._append(STOPPED, {"reason": reason})

    def _append(self, event: str, content: dict[str, Any]) -> None:
        line = json.dumps({"event": event, **_finite(content)}, allow_nan=False)
        with (self._folder / EVENTS).open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())


def read_rounds(folder: Path) -> list[dict[str, Any]]:
    """Return the events of the rounds that have ended, as far as a folder tells; a line that was cut off does not."""
    path = folder / EVENTS
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    events = [json.loads(line) for line in lines if line.endswith("\n")]
    return [event for event in events if event["event"] == ROUND]


def keep_rounds(folder: Path, *, before: int) -> list[dict[str, Any]]:
    """Drop all events but those of the rounds before some round, and return these; the folder is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    earlier = [event for event in read_rounds(folder) if event["number"] < before]
    kept = "".join(f"{json.dumps(event, allow_nan=False)}\n" for event in earlier)
    replace_file(folder / EVENTS, kept.encode())
    return earlier


def _finite(value: Any) -> Any:
    """Replace numbers that JSON has no word for by None."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
