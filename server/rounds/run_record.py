"""What a run leaves behind: one JSON line for each event, and the best and last shared weights."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from fedmunkey.common.model.checkpoints import Checkpoint, write_checkpoint
from fedmunkey.common.model.model import ModelShape

EVENTS = "events.jsonl"
ROUND = "round"
WAITING = "waiting"
FINISHED = "finished"
STOPPED = "stopped"
LAST = "last.safetensors"
BEST = "best.safetensors"


@dataclass(frozen=True)
class RoundRecord:
    """One finished round, numbered from 1.

    `training` and `evaluation` hold each site's metrics, of which what is not a number, such as the loss of a site
    without records, becomes null; `mean` those of evaluation averaged over sites. `failures` gives the reason of each
    site that answered with an error; one that never answered otherwise has its node's number. Bytes are those of shared
    weights sent to the sites (down) and received from them (up), seconds from the round's opening to its end.
    """

    number: int
    training: dict[str, dict[str, float]] = field(default_factory=dict)
    evaluation: dict[str, dict[str, float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    mean: dict[str, float] = field(default_factory=dict)
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: float = 0.0


class RunRecord:
    """Writes a run's events and weights into a folder.

    The folder is made if it is not there, and an earlier run's events are replaced. The weights are of a model of some
    shape; beside them go the key encoder's name and JSON-ready facts.
    """

    def __init__(self, folder: Path, shape: ModelShape, encoder: str, facts: dict[str, Any]) -> None:
        self._folder = folder
        self._shape = shape
        self._encoder = encoder
        self._facts = facts
        self._best = -math.inf
        folder.mkdir(parents=True, exist_ok=True)
        (folder / EVENTS).write_text("")

    def note_round(self, record: RoundRecord, weights: Mapping[str, Tensor]) -> None:
        """Write a round's metrics and weights.

        The best have the highest selection accuracy so far, averaged over sites. Where sites send none, since nothing
        may be chosen by, the last are the best.
        """
        mean = record.mean
        score = mean.get("selection-accuracy")
        about = {**self._facts, "round": record.number, "mean": _finite(mean)}
        checkpoint = Checkpoint(weights, self._shape, self._encoder, about)
        write_checkpoint(self._folder / LAST, checkpoint)
        if score is None or score > self._best:
            self._best = -math.inf if score is None else score
            write_checkpoint(self._folder / BEST, checkpoint)
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
