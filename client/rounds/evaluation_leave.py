"""What a site lets its evaluation replies say, and how often: it decides that itself, whatever a coordinator asks."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.private_files import locked_folder, replace_file

STEP = 10
"""Counts of right answers are rounded to a multiple of it."""

A_DAY = 8
"""Evaluation replies with numbers in any 24 hours."""

FEWEST = 100
"""Held-out records below which a site says nothing, unless its `site.toml` says otherwise."""

_FILE = "evaluations.json"
_DAY = 24 * 3600.0


class EvaluationLeave(StrEnum):
    """What evaluation replies may say; `FULL` is for simulated sites, whose data is the simulation's."""

    OFF = "off"
    COUNTS = "counts"
    FULL = "full"


@dataclass(frozen=True)
class EvaluationRule:
    """What a site's evaluation replies may say, and about how many held-out records at least."""

    leave: EvaluationLeave
    fewest: int = FEWEST

    @classmethod
    def of(cls, node_config: Mapping[str, object], promised: Guarantee) -> EvaluationRule:
        """Return what a node's settings say; else a deployed site tells counts under `empirical` only.

        Raises `InvalidSetting` for what is no leave.
        """
        fewest = int(str(node_config.get("fewest-evaluated", FEWEST)))
        if "evaluation" in node_config:
            try:
                return cls(EvaluationLeave(str(node_config["evaluation"])), fewest)
            except ValueError:
                raise InvalidSetting(
                    f"evaluation = {node_config['evaluation']}: this site says off or counts; correct its settings"
                ) from None
        if "site-dir" not in node_config:
            return cls(EvaluationLeave.FULL)
        # Under `exact` a round's own left-out answers say what weights are worth, as a total over all sites.
        return cls(EvaluationLeave.COUNTS if promised is Guarantee.EMPIRICAL else EvaluationLeave.OFF, fewest)


def spend_evaluation(folder: SiteFolder, round_id: str = "", *, now: float | None = None) -> bool:
    """Note on the disk that a round's weights are evaluated, and return True; False where nothing more may be said.

    A round that has an id is evaluated once, and all together `A_DAY` times in 24 hours. A note that cannot be read
    counts as a day that is spent.
    """
    moment = time.time() if now is None else now
    path = folder.path / _FILE
    with locked_folder(folder.path):
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            times, rounds = [float(each) for each in said["times"]], [str(each) for each in said["rounds"]]
        except FileNotFoundError:
            times, rounds = [], []
        except (OSError, ValueError, KeyError, TypeError):
            times, rounds = [moment] * A_DAY, [""]
            _write(folder, times, rounds)
        # What a clock that was ahead has noted counts until it is a day away.
        times, rounds = _within_a_day(times, rounds, moment)
        if len(times) >= A_DAY or (round_id and round_id in rounds):
            return False
        _write(folder, [*times, moment], [*rounds, round_id])
    return True


def coarse_counts(right: int, examples: int) -> dict[str, float | int]:
    """Return what may be told of so many right answers: both counts rounded to `STEP`, the right ones at random.

    Rounding goes up with the probability that makes the mean right, so one record changes what is told with a
    probability of at most 1 / `STEP`, wherever the count lies.
    """
    shown = examples - examples % STEP
    if not shown:
        return {}
    chosen = STEP * int((right * shown / examples + random.SystemRandom().uniform(0, STEP)) // STEP)
    return {"num-examples": shown, "test-accuracy": min(chosen, shown) / shown}


def _within_a_day(times: list[float], rounds: list[str], moment: float) -> tuple[list[float], list[str]]:
    kept = [abs(moment - each) < _DAY for each in times]
    last = rounds[-A_DAY:]
    return [each for each, recent in zip(times, kept, strict=True) if recent], last


def _write(folder: SiteFolder, times: list[float], rounds: list[str]) -> None:
    content = json.dumps({"times": times, "rounds": rounds[-A_DAY:]})
    replace_file(folder.path / _FILE, f"{content}\n".encode(), 0o600)
