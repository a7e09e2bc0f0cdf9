"""What a site must not forget even if its key store goes back to a backup: one JSON object a line, only ever added to.

It lies beside the store and holds no identity: the answers to deletion orders, what training has spent of the patients'
privacy, what shared weights may hold of records, and when backups were taken.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.errors import KeyStoreError

ANSWER, TRAINING, INFLUENCE, BACKUP = "answer", "training", "influence", "backup"

Line = dict[str, str | int | float | None]


@dataclass(frozen=True)
class Journal:
    """The journal beside a key store.

    Attributes
    ----------
    path : Path
        Its file; there need not be one.
    """

    path: Path

    @classmethod
    def of(cls, store: Path) -> Journal:
        """Return the journal of a store by the store's path."""
        return cls(store.with_suffix(".journal"))

    def add(self, kind: str, values: Mapping[str, str | int | float | None]) -> None:
        """Add a line and bring it to the disk.

        Raises
        ------
        KeyStoreError
            If it cannot be written.
        """
        line = json.dumps({"kind": kind, **values}) + "\n"
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                # A line that was cut off by a crash must not swallow this one; empty lines do not count.
                os.write(file, b"\n" + line.encode())
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise KeyStoreError(
                f"the journal {self.path} cannot be written ({error.strerror}); check the free space on its disk"
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
