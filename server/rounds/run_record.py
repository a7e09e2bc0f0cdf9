"""What a run leaves behind: one JSON line for each event, and the best and last shared weights."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

EVENTS = "events.jsonl"
ROUND = "round"
WAITING = "waiting"
FINISHED = "finished"
STOPPED = "stopped"
LEFT_OUT = "left-out-accuracy"
"""In a round's `mean`: the share of all sites' training records answered rightly by weights that had not seen them."""

LAST = "last.safetensors"
BEST = "best.safetensors"


@dataclass
class RoundRecord:
    """One finished round, numbered from 1.

    `sites` are those that took its weights over; each decides what it tells of them.
    `training` and `evaluation` hold each site's metrics, of which what is not a number, such as the loss of a site
    without records, becomes null; `mean` those of evaluation averaged over sites. `failures` gives the reason of each
    site that answered with an error; one that never answered otherwise has its node's number. Bytes are those of shared
    weights sent to the sites (down) and received from them (up), seconds from the round's opening to its end.
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


class RunRecord:
    """Writes a run's events and weights into a folder.

    The folder is made if it is not there, and an earlier run's events are replaced. JSON-ready facts go beside the
    weights.
    """

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self._folder = folder
        self._facts = facts
        self._best = -math.inf
        folder.mkdir(parents=True, exist_ok=True)
        (folder / EVENTS).write_text("")

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


def _finite(value: Any) -> Any:
    """Replace numbers that JSON has no word for by None."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
