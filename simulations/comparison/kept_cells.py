"""Finished cells on disk, so that a comparison that was interrupted goes on where it was."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

from fedmunkey.common.private_files import replace_file

_FORMAT = 3


class Kept(Protocol):
    """What can be kept as JSON."""

    def to_json(self) -> dict[str, Any]:
        """Return it JSON-ready."""

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Read what `to_json` wrote."""


Found = TypeVar("Found", bound=Kept)


class KeptCells(Generic[Found]):
    """A folder with one file for each finished cell, named by a digest of everything that its result depends on.

    `kind` is the class of what a cell comes to: outcomes or, of a search, what was tried.
    """

    def __init__(self, folder: Path, kind: type[Found]) -> None:
        self._folder = folder
        self._kind = kind

    def read(self, cell: dict[str, Any]) -> list[Found] | None:
        """Return a cell's outcomes; None if it is not finished, or its file cannot be read and has to be made anew."""
        try:
            document = json.loads(self._path(cell).read_text())
            return [self._kind.from_json(outcome) for outcome in document["outcomes"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def keep(self, cell: dict[str, Any], outcomes: Sequence[Found]) -> None:
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
