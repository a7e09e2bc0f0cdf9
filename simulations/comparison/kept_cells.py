"""Finished cells on disk, so that a comparison that was interrupted goes on where it was."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedmunkey.common.private_files import replace_file
from fedmunkey.simulations.comparison.cell import Outcome

_FORMAT = 2


class KeptCells:
    """A folder with one file for each finished cell, named by a digest of everything that its result depends on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, cell: dict[str, Any]) -> list[Outcome] | None:
        """Return a cell's outcomes; None if it is not finished, or its file cannot be read and has to be made anew."""
        try:
            document = json.loads(self._path(cell).read_text())
            return [Outcome.from_json(outcome) for outcome in document["outcomes"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def keep(self, cell: dict[str, Any], outcomes: Sequence[Outcome]) -> None:
        """Write a cell's outcomes; a reader sees the whole file or none."""
        path = self._path(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {"format": _FORMAT, "cell": cell, "outcomes": [outcome.to_json() for outcome in outcomes]}
        replace_file(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())

    def _path(self, cell: dict[str, Any]) -> Path:
        text = json.dumps({"format": _FORMAT, **cell}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        family = re.sub("[^A-Za-z0-9.]+", "-", cell["family"])
        return self._folder / f"{cell['data']['name']}-{family}-{cell['seed']}-{digest}.json"
