"""Why something was asked for, kept on this machine alone: a request has no place for it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fedmunkey.common.errors import InvalidInput

GROUNDS = ("17-1-a", "17-1-b", "17-1-c", "17-1-d", "17-1-e", "17-1-f", "other")
"""Grounds of GDPR article 17(1), and others."""

MOST_CHARACTERS = 500


@dataclass(frozen=True)
class Note:
    """A ground of `GROUNDS` and, in the office's own words, why; `at` is when it was written."""

    ground: str
    reason: str
    at: datetime

    def __post_init__(self) -> None:
        """Check that it is short and of a known ground; raises `InvalidInput`."""
        if self.ground not in GROUNDS:
            raise InvalidInput("choose a legal ground from the list")
        if len(self.reason) > MOST_CHARACTERS or not self.reason.replace("\n", " ").isprintable():
            raise InvalidInput(f"a reason has at most {MOST_CHARACTERS} printable characters; write a shorter one")


class Notes:
    """A file that only its owner can read, to which lines are added; safe for threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def add(self, request_ids: Iterable[str], note: Note) -> None:
        """Keep a note of some requests; raises `InvalidInput` if it cannot be written."""
        about = {"ground": note.ground, "reason": note.reason, "at": note.at.isoformat()}
        lines = "".join(json.dumps({"request": name, **about}, ensure_ascii=False) + "\n" for name in request_ids)
        try:
            with self._lock:
                file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                with os.fdopen(file, "a", encoding="utf-8") as writing:
                    writing.write(lines)
                    writing.flush()
                    os.fsync(writing.fileno())
        except OSError as error:
            raise InvalidInput(
                f"the notes {self.path} cannot be written ({error.strerror}); nothing was asked"
            ) from None

    def find(self, request_id: str) -> Note | None:
        """Return the last note of a request, or of what it is a part of; None if there is none."""
        whole = request_id.rpartition(".")[0]
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except OSError:
            return None
        for line in reversed(lines):
            try:
                said = json.loads(line)
                if said["request"] in (request_id, whole):
                    return Note(said["ground"], said["reason"], datetime.fromisoformat(said["at"]))
            except (ValueError, KeyError, TypeError, InvalidInput):
                # A line that was cut off when the machine lost its power says nothing.
                continue
        return None
