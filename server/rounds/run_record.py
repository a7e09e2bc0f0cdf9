"""What a run leaves behind in a folder of its own: what it was asked for, one JSON line for each event, and weights.

The folder is locked for as long as the run goes on, so that whoever looks at it knows whether it was cut off.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.private_files import replace_file
from fedmunkey.server.rounds.learning_curves import draw_learning_curves

ABOUT = "run.json"
EVENTS = "events.jsonl"
CURVES = "curves.svg"
LAST = "last.safetensors"
BEST = "best.safetensors"
LEFT_OUT = "left-out-accuracy"
"""In a round's `mean`: the share of all sites' training records answered rightly by weights that had not seen them."""

SELECTION = "selection-accuracy"
"""The metric by which the best weights are chosen."""

ROUND = "round"
WAITING = "waiting"
RESUMED = "resumed"
FINISHED = "finished"
STOPPED = "stopped"

STARTED, SETTINGS, GUARANTEE, GIVES_OUT = "started", "settings", "guarantee", "gives-out"
"""What `ABOUT` says: when it began, by which settings, and whose weights it gave out again, if it was no training."""


_LOCK_SECONDS = 2.0
_PAUSE_SECONDS = 0.05


@dataclass
class RoundRecord:
    """One finished round, numbered from 1.

    `sites` are those that took part: that trained, or took its weights over; each decides what it tells of them.
    `training` and `evaluation` hold each site's metrics, of which what is not a number, such as the loss of a site
    without records, becomes null; `mean` those of evaluation averaged over sites. `failures` gives the reason of each
    site that answered with an error; one that never answered otherwise has its node's number. Bytes are those of shared
    weights sent to the sites (down) and received from them (up), seconds from the round's opening to its end. `digest`
    is that of the weights, in hexadecimal SHA-256, `classes` of how many records of each class, over all sites, they
    were solved from; empty where nobody knows.
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
    digest: str = ""
    classes: dict[str, int] = field(default_factory=dict)


class RunRecord:
    """Writes a run's events, curves and weights into its folder, which is made if it is not there.

    JSON-ready facts stand in the folder's `ABOUT` and beside the weights. Raises `InvalidSetting` if the folder holds
    another run, which nothing overwrites, or with `goes_on` none that was cut off.
    """

    def __init__(
        self,
        folder: Path,
        facts: dict[str, Any],
        *,
        goes_on: bool = False,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._facts = facts
        self._lock = _lock(folder)
        try:
            self._events = self._begin(clock, goes_on=goes_on)
        except BaseException:
            self.close()
            raise
        scores = [event["mean"].get(SELECTION) for event in self._events if event["event"] == ROUND]
        self._best = max((score for score in scores if score is not None), default=-math.inf)

    def __enter__(self) -> RunRecord:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others see that the run does not go on."""
        os.close(self._lock)

    def about(self, record: RoundRecord) -> dict[str, Any]:
        """Return the facts about a round's weights."""
        return {**self._facts, "round": record.number, "mean": _finite(record.mean)}

    def note_round(self, record: RoundRecord, write: Callable[[Path], None] | None, *, score: float | None) -> None:
        """Write a round's metrics and weights; `write` is given each path at which the weights shall be, if any.

        The best have the highest score so far; without any, since nothing may be chosen by, the last are the best.
        """
        if write is not None:
            write(self._folder / LAST)
            if score is None or score > self._best:
                self._best = -math.inf if score is None else score
                write(self._folder / BEST)
        self._append(ROUND, asdict(record))
        curves = draw_learning_curves([event for event in self._events if event["event"] == ROUND])
        if curves:
            replace_file(self._folder / CURVES, curves.encode())

    def note_waiting(self, reason: str) -> None:
        """Write that training waits, and for what; a later event says how the waiting ended."""
        self._append(WAITING, {"reason": reason})

    def note_finished(self) -> None:
        """Write that the run came to its end."""
        self._append(FINISHED, {})

    def note_stopped(self, reason: str) -> None:
        """Write why the run stopped before its end."""
        self._append(STOPPED, {"reason": reason})

    def _begin(self, clock: Callable[[], datetime], *, goes_on: bool) -> list[dict[str, Any]]:
        there = read_about(self._folder)
        events = read_events(self._folder)
        if not goes_on:
            if there or events:
                raise InvalidSetting(
                    f"{self._folder} holds a run already, which is never overwritten; name another folder with "
                    "output-dir"
                )
            write_about(self._folder, {STARTED: clock().isoformat(timespec="seconds"), **self._facts})
            replace_file(self._folder / EVENTS, b"")
            return []
        if not there:
            raise InvalidSetting(f"{self._folder} holds no run to go on with; leave resume-run out")
        if events and events[-1]["event"] == FINISHED:
            raise InvalidSetting(f"the run in {self._folder} came to its end; begin another")
        # A line that was cut off must not become a part of the next one.
        replace_file(self._folder / EVENTS, "".join(f"{json.dumps(event)}\n" for event in events).encode())
        self._events = events
        self._append(RESUMED, {})
        return self._events

    def _append(self, event: str, content: dict[str, Any]) -> None:
        written = {"event": event, **_finite(content)}
        with (self._folder / EVENTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(written, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._events.append(written)


def write_about(folder: Path, about: dict[str, Any]) -> None:
    """Write what a run is, JSON-ready, into its folder."""
    text = json.dumps(_finite(about), indent=2, allow_nan=False)
    replace_file(folder / ABOUT, f"{text}\n".encode())


def read_about(folder: Path) -> dict[str, Any]:
    """Return what a run's folder says of it; nothing where it says nothing that can be read."""
    try:
        found = json.loads((folder / ABOUT).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Return what a run has written down; nothing if it never began. A line that a crash has cut off is left out."""
    with contextlib.suppress(OSError):
        return list(_whole_lines((folder / EVENTS).read_text(encoding="utf-8")))
    return []


def is_under_way(folder: Path) -> bool:
    """Return whether a process is writing a run into a folder."""
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(opened)
    return False


def _whole_lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def _lock(folder: Path) -> int:
    """Lock a folder until the process ends or what is returned is closed; raises `InvalidSetting`."""
    opened = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return opened
        except BlockingIOError:
            # Whoever looks whether a run is under way has it for a moment.
            if time.monotonic() > deadline:
                os.close(opened)
                raise InvalidSetting(f"the run in {folder} is under way; wait for its end, or stop it") from None
        time.sleep(_PAUSE_SECONDS)


def _finite(value: Any) -> Any:
    """Replace numbers that JSON has no word for by None."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
