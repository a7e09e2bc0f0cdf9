"""The register of runs: a folder for each, of which none is ever written over; what they left is read from there.

Nothing else has to be kept in step with the folders. The weights of older runs go, what is known of them stays.
"""

from __future__ import annotations

import difflib
import json
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.private_files import replace_file
from fedmunkey.server.rounds.run_record import (
    BEST,
    EVENTS,
    FINISHED,
    GIVES_OUT,
    GUARANTEE,
    LAST,
    ROUND,
    SETTINGS,
    STARTED,
    STOPPED,
    is_under_way,
    read_about,
    read_events,
    write_about,
)

LATEST = "latest"
"""What a person may say for the run that began last."""

DIGEST = "digest"

_NAME = "%Y-%m-%d-%H%M%S"
_ID_BYTES = 3


class RunState(StrEnum):
    """What has become of a run."""

    UNDER_WAY = "under way"
    FINISHED = "finished"
    STOPPED = "stopped"
    CUT_OFF = "cut off"


@dataclass(frozen=True)
class KeptRun:
    """One run, as its folder tells.

    `about` is what was asked for, `events` what happened, `state` what has become of it.
    """

    folder: Path
    about: dict[str, Any]
    events: tuple[dict[str, Any], ...]
    state: RunState

    @classmethod
    def read(cls, folder: Path) -> KeptRun | None:
        """Return the run of a folder; None if it holds none."""
        about = read_about(folder)
        if STARTED not in about:
            return None
        under_way = is_under_way(folder)
        events = tuple(read_events(folder))
        last = events[-1]["event"] if events else ""
        state = {FINISHED: RunState.FINISHED, STOPPED: RunState.STOPPED}.get(last, RunState.CUT_OFF)
        return cls(folder, about, events, RunState.UNDER_WAY if under_way else state)

    @property
    def name(self) -> str:
        """When it began, and an id."""
        return self.folder.name

    @property
    def started(self) -> str:
        """When it began, ISO 8601 in UTC."""
        return str(self.about[STARTED])

    @property
    def guarantee(self) -> Guarantee:
        """Of the weights; what says nothing may hold anything."""
        said = str(self.about.get(GUARANTEE, ""))
        return Guarantee(said) if said in set(Guarantee) else Guarantee.EMPIRICAL

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that it began with."""
        return dict(self.about.get(SETTINGS, {}))

    @property
    def gives_out(self) -> str:
        """The run whose weights it gave to the sites again; empty for one that made its own."""
        return str(self.about.get(GIVES_OUT, ""))

    @property
    def reason(self) -> str:
        """Why it stopped before its end, as far as it could say."""
        return next((str(event["reason"]) for event in reversed(self.events) if event["event"] == STOPPED), "")

    @cached_property
    def rounds(self) -> tuple[dict[str, Any], ...]:
        """Its finished rounds, each once: one that was begun again after a resumption counts as the last time."""
        by_number = {event["number"]: event for event in self.events if event["event"] == ROUND}
        return tuple(by_number[number] for number in sorted(by_number))

    @property
    def digest(self) -> str:
        """Of its last weights; empty if nobody knows."""
        noted = str(self.rounds[-1].get(DIGEST, "")) if self.rounds else ""
        return noted or str(_beside_weights(self.folder / LAST).get(DIGEST, ""))

    @property
    def weights(self) -> Path | None:
        """Its last weights; None where there never were any, or they were removed."""
        path = self.folder / LAST
        return path if path.exists() else None

    @property
    def answers(self) -> bool:
        """Whether sites that were there answer from its weights, as long as nothing comes after it.

        Each release of `exact` is whole, so sites take it over at once; other weights when the run has ended well.
        """
        if self.guarantee is Guarantee.EXACT:
            return bool(self.rounds)
        return self.state is RunState.FINISHED


def new_run_folder(folder: Path, now: datetime) -> Path:
    """Return a folder, not made yet, for a run that begins: its name is the time in UTC and an id."""
    return folder / f"{now.astimezone(UTC):{_NAME}}-{secrets.token_hex(_ID_BYTES)}"


def read_runs(folder: Path) -> list[KeptRun]:
    """Return the runs of a folder in the order in which they began."""
    if not folder.is_dir():
        return []
    found = (KeptRun.read(path) for path in sorted(folder.iterdir()) if path.is_dir())
    return sorted((run for run in found if run is not None), key=lambda run: (run.started, run.name))


def find_run(runs: Sequence[KeptRun], name: str) -> KeptRun:
    """Return the run of a name, of a part of it that no other has, or the `LATEST`; raises `InvalidSetting`."""
    if not runs:
        raise InvalidSetting(f"{name}: there is no run yet; begin one with munkey-server run")
    if name == LATEST:
        return runs[-1]
    fitting = [run for run in runs if name and name in run.name]
    exact = [run for run in fitting if run.name == name]
    if len(exact or fitting) == 1:
        return (exact or fitting)[0]
    if fitting:
        raise InvalidSetting(f"{name} may be any of {', '.join(run.name for run in fitting)}; say more of its name")
    close = difflib.get_close_matches(name, [run.name for run in runs], n=1)
    hint = f"did you mean {close[0]}?" if close else "munkey-server runs lists them"
    raise InvalidSetting(f"there is no run {name}; {hint}")


def run_in_use(runs: Sequence[KeptRun]) -> KeptRun | None:
    """Return the run whose weights sites answer from that have heard everything; None before the first."""
    by_name = {run.name: run for run in runs}
    for run in reversed(runs):
        if run.answers:
            return by_name.get(run.gives_out) if run.gives_out else run
    return None


def remove_old_weights(
    runs: Sequence[KeptRun], keep: int, holds_deleted: Callable[[str], Iterable[str]]
) -> dict[str, str]:
    """Remove weights of all runs but those in use and the last `keep`, and any that hold what was deleted.

    `holds_deleted` returns the requests that have erased what weights of `exact`, by their digest, were solved with.
    Returns why each run's weights went. What else a run's folder holds stays.
    """
    used = run_in_use(runs)
    with_weights = [run for run in runs if run.weights and run.state is not RunState.UNDER_WAY]
    newest = {run.name for run in with_weights[-keep:]}
    removed = {}
    for run in with_weights:
        if used is not None and run.name == used.name:
            continue
        deleted = list(holds_deleted(run.digest)) if run.guarantee is Guarantee.EXACT and run.digest else []
        if deleted:
            removed[run.name] = f"they were solved with what {' and '.join(deleted[:3])} erased"
        elif run.name not in newest:
            removed[run.name] = f"more than {keep} runs came later"
        if run.name in removed:
            _remove_weights(run.folder)
    return removed


def take_over_former(folder: Path) -> str | None:
    """Move what a version before has left of its last run, in the folder of all runs itself, into one of its own.

    Returns the run's name, or None if nothing was there. An attempt that was cut off is made up for.
    """
    files = [path for name in (EVENTS, LAST, BEST) for path in (folder / name, (folder / name).with_suffix(".json"))]
    there = [path for path in files if path.is_file()]
    if not there:
        return None
    ended = datetime.fromtimestamp(max(path.stat().st_mtime for path in there), UTC)
    unfinished = sorted(folder.glob("*-former"))
    kept = unfinished[0] if unfinished else folder / f"{ended:{_NAME}}-former"
    kept.mkdir(exist_ok=True)
    about: dict[str, Any] = {}
    for path in (folder / LAST, folder / BEST, kept / LAST, kept / BEST):
        if not about and path.exists():
            about = dict(_beside_weights(path).get("about", {}))
    if not read_about(kept):
        facts = {name: about[name] for name in (GUARANTEE, SETTINGS) if name in about}
        write_about(kept, {STARTED: ended.isoformat(timespec="seconds"), **facts})
    for path in there:
        path.rename(kept / path.name)
    if not (kept / EVENTS).exists():
        replace_file(kept / EVENTS, b"")
    return kept.name


def _beside_weights(path: Path) -> dict[str, Any]:
    """Return what the file beside some weights says of them, without reading these."""
    try:
        found = json.loads(path.with_suffix(".json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _remove_weights(folder: Path) -> None:
    for name in (LAST, BEST):
        (folder / name).unlink(missing_ok=True)
        (folder / name).with_suffix(".json").unlink(missing_ok=True)
