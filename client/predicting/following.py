"""A folder that is watched: each new picture in it is answered once, as a line of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from fedmunkey.client.predicting.warm_predictor import WarmPredictor
from fedmunkey.client.records.dataset import BATCH
from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import FedmunkeyError, InvalidInput

SIZE, MODIFIED = "size", "modified"
"""What tells a picture from a later one of the same name, in its line: bytes, and nanoseconds."""

Mark = tuple[str, int, int]
"""A file's name, size and time."""


@dataclass
class FolderFollower:
    """Answers the pictures of a folder as they come.

    Files whose names begin with a dot, and folders in it, are left alone. `write` takes each answer's document, `tell`
    why nothing is answered now, once for each reason; pictures wait until something is.
    """

    folder: Path
    predictor: WarmPredictor
    write: Callable[[dict[str, Any]], object]
    tell: Callable[[str], object]
    done: set[Mark] = field(default_factory=set)
    clock: Callable[[], datetime] = utc_now
    _seen: set[Mark] = field(default_factory=set)
    _told: str = ""

    def look(self) -> int:
        """Answer what is new and complete, and return how many files that were.

        A file is complete when it is as it was at the look before: whoever writes one takes some time. Raises
        `InvalidInput` if the folder cannot be read.
        """
        self.predictor.look()
        there = self._marks()
        self.done &= there
        ready = sorted((there & self._seen) - self.done, key=lambda mark: (mark[2], mark[0]))
        self._seen = there
        for start in range(0, len(ready), BATCH):
            part = ready[start : start + BATCH]
            try:
                answers = self.predictor.answer([(self.folder / name, name) for name, _, _ in part])
                weights = self.predictor.weights()
            except FedmunkeyError as error:
                self._tell(str(error))
                return start
            self._tell("")
            for mark, answer in zip(part, answers, strict=True):
                about = {"at": self.clock().isoformat(timespec="milliseconds"), "weights": weights}
                self.write({**about, **answer.document(), SIZE: mark[1], MODIFIED: mark[2]})
                self.done.add(mark)
        return len(ready)

    def _marks(self) -> set[Mark]:
        marks = set()
        try:
            for path in self.folder.iterdir():
                if path.name.startswith(".") or not path.is_file():
                    continue
                try:
                    found = path.stat()
                except FileNotFoundError:
                    continue
                marks.add((path.name, found.st_size, found.st_mtime_ns))
        except OSError as error:
            raise InvalidInput(f"{self.folder} cannot be followed ({error.strerror}); name a folder") from None
        return marks

    def _tell(self, reason: str) -> None:
        if reason and reason != self._told:
            self.tell(reason)
        self._told = reason


def read_done(path: Path) -> set[Mark]:
    """Return what a file of answers has answered already; nothing if it is not there yet.

    Raises `InvalidInput` if it is another file than one of answers.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return set()
    except (OSError, UnicodeDecodeError):
        raise InvalidInput(f"{path} cannot be read as a file of answers; name another with --output") from None
    done: set[Mark] = set()
    for number, line in enumerate(lines, 1):
        try:
            said = json.loads(line)
            done.add((str(said["file"]), int(said[SIZE]), int(said[MODIFIED])))
        except (ValueError, KeyError, TypeError):
            if number == len(lines):
                # It was being written when the process was stopped, so it is written again.
                continue
            raise InvalidInput(f"line {number} of {path} is no answer of predict; name another --output") from None
    return done


def open_answers(path: Path) -> TextIO:
    """Open a file of answers to add some; raises `InvalidInput` if it cannot be written.

    A last line that was cut off is removed.
    """
    try:
        if path.exists():
            content = path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                with path.open("r+b") as file:
                    file.truncate(whole)
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written ({error.strerror}); name another with --output") from None
