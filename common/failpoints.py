"""Failpoints: named places at which a test or `munkey-sim faults` makes a running program fail.

They are off unless the environment variable `MUNKEY_FAILPOINTS` is set for a process, and cost one look at a variable
then. Its value is a list of `failpoint=action`, separated by semicolons:

    apply.before-commit=kill@3;dispatch.before-send=delay:0.2%0.1;seed=7

| action | what happens there |
| --- | --- |
| `kill` | the process sends itself SIGKILL |
| `raise:NAME` | an `OSError` with that errno (`ENOSPC`, ...), or SQLite's own error for `BUSY`, `FULL` and `CORRUPT` |
| `delay:SECONDS` | the thread that came by waits |

Without a suffix the action happens every time, with `@N` at the N-th time only, and with `%P` each time with the
probability P. `seed` makes the latter repeatable. A failpoint can only make a program fail or wait, never skip a step:
nothing that an environment variable says may turn a deletion into one that did not happen.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from fedmunkey.common.errors import InvalidSetting

VARIABLE = "MUNKEY_FAILPOINTS"

logger = logging.getLogger(__name__)

_SQLITE_ERRORS: dict[str, tuple[type[sqlite3.DatabaseError], str]] = {
    "BUSY": (sqlite3.OperationalError, "database is locked"),
    "FULL": (sqlite3.OperationalError, "database or disk is full"),
    "CORRUPT": (sqlite3.DatabaseError, "database disk image is malformed"),
}


class Failpoint(StrEnum):
    """Every place that can be made to fail, in the order in which a deletion, a round and a member come by."""

    SUBMIT_RECEIVED = "submit.received"
    SUBMIT_BEFORE_COMMIT = "submit.before-commit"
    SUBMIT_AFTER_COMMIT = "submit.after-commit"
    DISPATCH_BEFORE_READ = "dispatch.before-read"
    DISPATCH_BEFORE_SEND = "dispatch.before-send"
    APPLY_RECEIVED = "apply.received"
    APPLY_BEFORE_COMMIT = "apply.before-commit"
    APPLY_AFTER_COMMIT = "apply.after-commit"
    APPLY_AFTER_ERASURE = "apply.after-erasure"
    APPLY_FINISHED = "apply.finished"
    ANSWER_BEFORE_SEND = "answer.before-send"
    ACKNOWLEDGE_RECEIVED = "acknowledge.received"
    ACKNOWLEDGE_BEFORE_COMMIT = "acknowledge.before-commit"
    ACKNOWLEDGE_AFTER_COMMIT = "acknowledge.after-commit"
    ANSWER_AFTER_SEND = "answer.after-send"
    ANSWER_NOTED = "answer.noted"
    ROUND_RECEIVED = "round.received"
    ROUND_BEFORE_COMMIT = "round.before-commit"
    ROUND_AFTER_COMMIT = "round.after-commit"
    TRAIN_CAUGHT_UP = "train.caught-up"
    TRAIN_AFTER_STEP = "train.after-step"
    WRITE_BACK_BEFORE_BEGIN = "write-back.before-begin"
    WRITE_BACK_BEFORE_COMMIT = "write-back.before-commit"
    WRITE_BACK_AFTER_COMMIT = "write-back.after-commit"
    CONTRIBUTE_SUMMED = "contribute.summed"
    CONTRIBUTE_MASKED = "contribute.masked"
    TALLY_COUNTED = "tally.counted"
    RELEASE_RECEIVED = "release.received"
    RELEASE_WRITTEN = "release.written"
    JOIN_KEY_MADE = "join.key-made"
    JOIN_ISSUED = "join.issued"
    ROTATE_KEY_MADE = "rotate.key-made"
    ROTATE_ISSUED = "rotate.issued"
    ROTATE_STAGED = "rotate.staged"
    ROTATE_KEY_MOVED = "rotate.key-moved"
    ROTATE_IN_PLACE = "rotate.in-place"


class Act(StrEnum):
    """What a failpoint can do."""

    KILL = "kill"
    RAISE = "raise"
    DELAY = "delay"


@dataclass(frozen=True)
class Action:
    """One action at one failpoint, which happens with a probability each time, or `at` one time of coming by only.

    `RAISE` has the name of an errno, or `BUSY`, `FULL`, `CORRUPT`; `DELAY` has seconds.
    """

    act: Act
    error: str = ""
    seconds: float = 0.0
    at: int = 0
    probability: float = 1.0

    def __str__(self) -> str:
        """Write it as the environment variable holds it."""
        argument = f":{self.error}" if self.error else f":{self.seconds:g}" if self.act is Act.DELAY else ""
        when = f"@{self.at}" if self.at else f"%{self.probability:g}" if self.probability < 1 else ""
        return f"{self.act}{argument}{when}"

    def error_to_raise(self) -> Exception:
        """Return what `RAISE` raises."""
        if self.error in _SQLITE_ERRORS:
            kind, message = _SQLITE_ERRORS[self.error]
            return kind(message)
        number = getattr(errno, self.error)
        return OSError(number, os.strerror(number))


@dataclass(frozen=True)
class FailpointPlan:
    """Which failpoints do what, and the seed of those that leave it to chance."""

    actions: Mapping[Failpoint, Action] = field(default_factory=dict)
    seed: int = 0

    def __str__(self) -> str:
        """Write it as the environment variable holds it."""
        return ";".join([*(f"{point}={action}" for point, action in self.actions.items()), f"seed={self.seed}"])

    @classmethod
    def parse(cls, text: str) -> FailpointPlan:
        """Read what the environment variable holds.

        Raises `InvalidSetting` if a failpoint or an action is unknown or malformed; the message says which.
        """
        actions, seed = dict[Failpoint, Action](), 0
        for item in filter(None, (part.strip() for part in text.split(";"))):
            name, _, value = item.partition("=")
            if name == "seed":
                seed = int(_number(value, item, whole=True))
                continue
            try:
                actions[Failpoint(name)] = _parse_action(value, item)
            except ValueError:
                raise InvalidSetting(
                    f"{VARIABLE}: {name!r} is no failpoint; take one of {', '.join(Failpoint)}"
                ) from None
        return cls(actions, seed)


class Armed:
    """A plan that is being carried out in this process; safe for threads."""

    def __init__(
        self,
        plan: FailpointPlan,
        *,
        kill: Callable[[], object] | None = None,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self._plan, self._kill, self._wait = plan, kill or _kill_this_process, wait
        self._draw = random.Random(plan.seed)  # noqa: S311 (chance, no secret)
        self._hits: Counter[Failpoint] = Counter()
        self._lock = threading.Lock()

    def hit(self, point: Failpoint) -> None:
        """Come by a failpoint; raises what the plan says."""
        action = self._plan.actions.get(point)
        if action is None:
            return
        with self._lock:
            self._hits[point] += 1
            happens = self._hits[point] == action.at if action.at else self._draw.random() < action.probability
        if not happens:
            return
        logger.warning("failpoint %s: %s", point, action)
        if action.act is Act.KILL:
            self._kill()
        elif action.act is Act.DELAY:
            self._wait(action.seconds)
        else:
            raise action.error_to_raise()


class _Unread:
    """Stands for a plan in the environment that nobody has read yet: Flower starts an app without our command line."""

    def hit(self, point: Failpoint) -> None:
        arm_from_environment()
        hit(point)


_armed: Armed | _Unread | None = _Unread() if VARIABLE in os.environ else None


def hit(point: Failpoint) -> None:
    """Come by a failpoint; nothing happens unless this process was started with a plan that names it."""
    if _armed is not None:
        _armed.hit(point)


def is_armed() -> bool:
    """Return whether any failpoint may do something here, for places where coming by has a cost of its own."""
    return _armed is not None


def arm(armed: Armed | None) -> None:
    """Have a plan carried out in this process from here on, or none."""
    global _armed
    _armed = armed


def arm_from_environment(environment: Mapping[str, str] = os.environ) -> None:
    """Carry out the plan that the environment variable holds, if it is set; raises `InvalidSetting` as `parse` does."""
    text = environment.get(VARIABLE, "")
    arm(Armed(FailpointPlan.parse(text)) if text else None)


def _parse_action(text: str, item: str) -> Action:
    if "@" in text and "%" in text:
        raise InvalidSetting(f"{VARIABLE}: {item!r} has both @ and %; give one of them")
    what, at, time_of_hit = text.partition("@")
    what, share, chance = what.partition("%")
    name, _, argument = what.partition(":")
    try:
        act = Act(name)
    except ValueError:
        raise InvalidSetting(f"{VARIABLE}: {item!r} has no known action; take one of {', '.join(Act)}") from None
    action = Action(
        act,
        error=argument if act is Act.RAISE else "",
        seconds=_number(argument, item) if act is Act.DELAY else 0.0,
        at=int(_number(time_of_hit, item, whole=True)) if at else 0,
        probability=_number(chance, item) if share else 1.0,
    )
    if act is Act.RAISE and argument not in _SQLITE_ERRORS and not isinstance(getattr(errno, argument, None), int):
        raise InvalidSetting(
            f"{VARIABLE}: {item!r} names no error; take an errno such as ENOSPC, or {', '.join(_SQLITE_ERRORS)}"
        )
    if (
        (act is Act.KILL and argument)
        or action.seconds < 0
        or (at and action.at < 1)
        or not 0 <= action.probability <= 1
    ):
        raise InvalidSetting(f"{VARIABLE}: {item!r} is out of range; see common/failpoints.py for what can be written")
    return action


def _number(text: str, item: str, *, whole: bool = False) -> float:
    try:
        return int(text) if whole else float(text)
    except ValueError:
        raise InvalidSetting(f"{VARIABLE}: {text!r} in {item!r} is not a {'whole ' * whole}number") from None


def _kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
