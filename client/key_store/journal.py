"""What a site must not forget even if its key store goes back to a backup: one JSON object a line, only ever added to.

It lies beside the store and holds no identity: the answers to deletion orders, what training has spent of the patients'
privacy, what shared weights may hold of records, and when backups were taken.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedmunkey.client.key_store.new_file import make_file, write_all
from fedmunkey.common.errors import KeyStoreError

ANSWER, TRAINING, TAKEN_BACK, INFLUENCE, BACKUP = "answer", "training", "taken back", "influence", "backup"

ANSWER_COLUMNS = (
    "number",
    "request_id",
    "state",
    "records",
    "entries",
    "guarantee",
    "seconds",
    "reason",
    "last_training",
    "subject_records",
    "record_epsilon",
    "subject_epsilon",
)
"""What is kept of an answer, and a restored store gives again."""

TRAINING_COLUMNS = ("id", "round", "steps", "sampling_rate", "noise_multiplier")
"""What is kept of a training that was released."""

Line = Mapping[str, str | int | float | None]


@dataclass(frozen=True)
class Journal:
    """The journal beside a key store.

    Attributes
    ----------
    path : Path
        Its file.
    """

    path: Path

    @classmethod
    def of(cls, store: Path) -> Journal:
        """Return the journal of a store by the store's path."""
        return cls(store.with_suffix(".journal"))

    def create(self, lines: Iterable[Line] = ()) -> None:
        """Make the file with some lines, complete or not at all.

        Raises
        ------
        FileExistsError
            If there is one.
        KeyStoreError
            If it cannot be written.
        """
        make_file(self.path, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def add(self, kind: str, values: Line) -> None:
        """Add a line and bring it to the disk; raises as `add_all` does."""
        self.add_all(kind, [values])

    def add_all(self, kind: str, lines: Iterable[Line]) -> None:
        """Add lines and bring them to the disk together.

        Raises
        ------
        KeyStoreError
            If there is no file or it cannot be written; it is never made anew here, where nobody would notice.
        """
        content = "".join(json.dumps({"kind": kind, **values}) + "\n" for values in lines)
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                # A line that was cut off by a crash must not swallow the first of these; empty lines do not count.
                write_all(file, b"\n" + content.encode())
                os.fsync(file)
            finally:
                os.close(file)
        except FileNotFoundError:
            raise KeyStoreError(
                f"the journal {self.path} is missing; put it back, or stop every process of the site and run "
                "munkey-client status, which writes it again from the key store"
            ) from None
        except OSError as error:
            raise KeyStoreError(
                f"the journal {self.path} cannot be written ({error.strerror}); check its permissions and the free "
                "space on its disk"
            ) from None

    def read(self, kind: str) -> list[Line]:
        """Return the lines of one kind, oldest first; a line that a crash cut off does not count."""
        if not self.path.exists():
            return []
        found = []
        for text in self.path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text) if text else {}
            except ValueError:
                continue
            if line.get("kind") == kind:
                found.append(line)
        return found
