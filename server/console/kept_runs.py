"""Runs and reports of audits as a console shows them: read again only when a file has changed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from fedmunkey.server.rounds.run_record import ABOUT, EVENTS, LEFT_OUT, ROUND, is_under_way
from fedmunkey.server.rounds.runs import KeptRun

_LARGEST_REPORT = 32 * 2**20
_TEST = "test-accuracy"
REPORT = "report.json"
"""What a report is called in a folder of its own."""

_Kept = TypeVar("_Kept")


@dataclass(frozen=True)
class RoundLine:
    """One finished round in a table; accuracies are means over sites, None where no site told its own."""

    number: int
    sites: int
    failures: int
    accuracy: float | None
    left_out: float | None
    seconds: float
    digest: str


@dataclass(frozen=True)
class RunLine:
    """A run with its rounds in short; of the events of `run` only the last round's are whole."""

    run: KeptRun
    rounds: tuple[RoundLine, ...]


@dataclass(frozen=True)
class AuditLine:
    """A report of an audit.

    Attributes
    ----------
    fault : str
        Why it cannot be read; then all else is empty.
    written : str
        When it was made, ISO 8601.
    data, guarantee, headline : str
        On which records, under which guarantee, and what it comes to, in a sentence.
    verdicts : sequence of mappings
        What was checked: `title`, `passed`, `sentence`.
    """

    name: str
    fault: str = ""
    written: str = ""
    data: str = ""
    guarantee: str = ""
    headline: str = ""
    verdicts: Sequence[Mapping[str, Any]] = ()

    @property
    def flagged(self) -> int:
        """How many verdicts are flagged."""
        return sum(not verdict["passed"] for verdict in self.verdicts)


class _Unchanged(Generic[_Kept]):
    """What was read of some paths, by a stamp that changes with them; safe for threads."""

    def __init__(self, read: Callable[[Path], _Kept | None]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._kept: dict[Path, tuple[object, _Kept | None]] = {}

    def read_all(self, stamps: Mapping[Path, object]) -> list[_Kept]:
        """Return what all paths hold, in their order; whatever is not among them is forgotten."""
        with self._lock:
            known = {path: self._kept[path] for path in stamps if path in self._kept}
        for path, stamp in stamps.items():
            if path not in known or known[path][0] != stamp:
                known[path] = (stamp, self._read(path))
        with self._lock:
            self._kept = known
        return [kept for path in stamps if (kept := known[path][1]) is not None]


class KeptRuns:
    """The runs in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept = _Unchanged(_read_run)

    def read(self) -> list[RunLine]:
        """Return the runs in the order in which they began."""
        folders = sorted(path for path in self._folder.iterdir() if path.is_dir()) if self._folder.is_dir() else []
        stamps = {path: (_stamp(path / EVENTS), _stamp(path / ABOUT), is_under_way(path)) for path in folders}
        return sorted(self._kept.read_all(stamps), key=lambda line: (line.run.started, line.run.name))


class KeptAudits:
    """The reports of audits in a folder: files, or what `munkey-sim audit --output` has made, each a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept = _Unchanged(_read_audit)

    def read(self) -> list[AuditLine]:
        """Return the reports, the last first; what is JSON but of another kind is left out."""
        found_in = self._folder
        files = sorted([*found_in.glob("*.json"), *found_in.glob(f"*/{REPORT}")]) if found_in.is_dir() else []
        found = self._kept.read_all({path: _stamp(path) for path in files})
        return sorted(found, key=lambda line: (line.written, line.name), reverse=True)


def _read_run(folder: Path) -> RunLine | None:
    run = KeptRun.read(folder)
    if run is None:
        return None
    rounds = tuple(_round_line(event) for event in run.rounds)
    others = [event for event in run.events if event["event"] != ROUND]
    return RunLine(replace(run, events=(*run.rounds[-1:], *others)), rounds)


def _round_line(event: Mapping[str, Any]) -> RoundLine:
    mean = event.get("mean", {})
    return RoundLine(
        event["number"],
        len(event.get("sites", ())),
        len(event.get("failures", ())),
        mean.get(_TEST),
        mean.get(LEFT_OUT),
        event.get("seconds", 0.0),
        event.get("digest", ""),
    )


def _read_audit(path: Path) -> AuditLine | None:
    name = path.parent.name if path.name == REPORT else path.stem
    try:
        if path.stat().st_size > _LARGEST_REPORT:
            return AuditLine(name, f"it has more than {_LARGEST_REPORT} bytes")
        said = json.loads(path.read_bytes())
        if said.get("kind") != "audit":
            return None
        verdicts = [
            {"title": str(one["title"]), "passed": bool(one["passed"]), "sentence": str(one["sentence"])}
            for one in said["verdicts"]
        ]
        guarantee, headline = said["guarantee"], said["headline"]
        return AuditLine(
            name,
            "",
            str(said["written"]),
            str(said["data"]["name"]),
            str(guarantee["name"]),
            str(headline["sentence"]),
            verdicts,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return AuditLine(name, "it cannot be read as a report")


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_mtime_ns, found.st_size
