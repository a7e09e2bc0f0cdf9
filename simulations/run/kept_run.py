"""What a run keeps in its folder so that one that was cut off goes on from its last round."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.private_files import replace_file
from fedmunkey.common.settings.settings_text import kebab
from fedmunkey.server.rounds.run_record import EVENTS, ROUND, read_about, read_events
from fedmunkey.simulations.federation.measurement import Measurement
from fedmunkey.simulations.federation.partition import DivideBy
from fedmunkey.simulations.reporting.files import JSON
from fedmunkey.simulations.run.baselines import Baseline
from fedmunkey.simulations.run.experiment import Experiment, HeldOutUse

COORDINATOR = "coordinator"
"""Where the coordinator's events and weights are, within the folder."""

_EXPERIMENT, _PREPARED, _MEASURED = "experiment.json", "prepared.json", "measured.jsonl"
_PATHS = (kebab("encoder_weights"), kebab("initial_weights"))


class KeptRun:
    """The folder of one run: what was asked for, whether its hospitals are enrolled, rounds and measurements so far."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, experiment: Experiment, data: str) -> None:
        """Write what is asked for, with a digest of the data set's images and labels."""
        asked = asdict(_from_anywhere(experiment))
        asked |= {name: None if asked[name] is None else str(asked[name]) for name in ("data_dir", "output", "storage")}
        self._write(_EXPERIMENT, {"experiment": asked, "data": data})

    def read(self) -> Experiment:
        """Return what was asked for, with this folder as its output.

        Raises `InvalidSetting` if the folder holds no run, or one that has come to its end.
        """
        if (self._folder / JSON).exists():
            raise InvalidSetting(f"{self._folder} has a report: the run in it has come to its end; begin another one")
        try:
            asked = self._read(_EXPERIMENT)["experiment"]
            asked["data_dir"] = asked["data_dir"] and Path(asked["data_dir"])
            asked["storage"] = asked["storage"] and Path(asked["storage"])
            asked["held_out"] = HeldOutUse(asked["held_out"])
            asked["divide_by"] = DivideBy(asked.get("divide_by", DivideBy.LABELS))
            asked["baselines"] = [Baseline(name) for name in asked["baselines"]]
            asked["changes"] = tuple(asked.get("changes", ()))
            return Experiment(**{**asked, "output": self._folder})
        except (OSError, ValueError, KeyError, TypeError):
            raise InvalidSetting(
                f"{self._folder} holds no run that was cut off; name the --output folder of one, or begin it anew"
            ) from None

    def check_data(self, digest: str) -> None:
        """Raise `InvalidSetting` if the data set has changed since the run began."""
        if self._read(_EXPERIMENT)["data"] != digest:
            raise InvalidSetting(f"{self._folder} was begun with other images or labels; put the data set back")

    @property
    def begun(self) -> bool:
        """Whether a run was begun in the folder."""
        return (self._folder / _EXPERIMENT).exists()

    def note_prepared(self, seconds: float) -> None:
        """Write that all hospitals have enrolled their records, and how long it took to come so far."""
        self._write(_PREPARED, {"seconds": seconds})

    def prepared_seconds(self) -> float | None:
        """Return how long it took until all hospitals had enrolled their records; None where they have not."""
        try:
            return float(self._read(_PREPARED)["seconds"])
        except FileNotFoundError:
            return None

    def rounds(self) -> list[dict[str, Any]]:
        """Return the events of the rounds that have ended."""
        return [event for event in read_events(self._folder / COORDINATOR) if event["event"] == ROUND]

    def take_up_rounds(self) -> bool:
        """Return whether a coordinator has begun here; what an earlier process has said of its end is dropped."""
        if not read_about(self._folder / COORDINATOR):
            return False
        kept = "".join(f"{json.dumps(event, allow_nan=False)}\n" for event in self.rounds())
        replace_file(self._folder / COORDINATOR / EVENTS, kept.encode())
        return True

    def measurement(self, deletion: int, when: str) -> Measurement | None:
        """Return what was measured `before` or `after` a deletion of the plan, which is named by its place."""
        for line in self._lines(self._folder / _MEASURED):
            if (line["deletion"], line["when"]) == (deletion, when):
                lists = {name: tuple(value) for name, value in line["found"].items() if isinstance(value, list)}
                return Measurement(**{**line["found"], **lists})
        return None

    def note_measurement(self, deletion: int, when: str, found: Measurement) -> None:
        """Write what was measured."""
        line = json.dumps({"deletion": deletion, "when": when, "found": asdict(found)})
        with (self._folder / _MEASURED).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def _read(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self._folder / name).read_text(encoding="utf-8"))
        return found

    def _write(self, name: str, content: dict[str, Any]) -> None:
        replace_file(self._folder / name, f"{json.dumps(content, indent=2)}\n".encode(), 0o600)

    @staticmethod
    def _lines(path: Path) -> Iterator[dict[str, Any]]:
        """Yield a file's whole lines; the last one may have been cut off."""
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        for line in text.splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)


def _from_anywhere(experiment: Experiment) -> Experiment:
    """Return the experiment with paths that mean the same in every working directory."""
    data = Path(experiment.data)
    overrides = {
        name: str(Path(str(value)).resolve()) if name in _PATHS and value else value
        for name, value in experiment.overrides.items()
    }
    return replace(
        experiment,
        data=str(data.resolve()) if data.is_file() else experiment.data,
        data_dir=experiment.data_dir and experiment.data_dir.resolve(),
        storage=experiment.storage and experiment.storage.resolve(),
        overrides=overrides,
    )
