"""Rows of a manifest that are not imported: which, and why. Nothing here holds an id, a path or a label."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from fedmunkey.common.errors import InvalidInput
from fedmunkey.common.private_files import replace_file

_HEADER = ("row", "reason", "detail")


class Reason(StrEnum):
    """Why a row is refused."""

    FIELDS = "fields"
    EMPTY = "empty"
    IDENTIFIER = "identifier"
    LABEL = "label"
    CONSENT = "consent"
    SPLIT = "split"
    DUPLICATE = "duplicate"
    SUBJECT = "subject"
    DIFFERS = "differs"
    DELETED = "deleted"
    OPTED_OUT = "opted-out"
    FILE = "file"


@dataclass(frozen=True, order=True, slots=True)
class RefusedRow:
    """A row that is not imported, by its place in the manifest (the header's is 1), and why; `detail` is for people."""

    row: int
    reason: Reason
    detail: str


def count_reasons(refusals: Iterable[RefusedRow]) -> dict[tuple[Reason, str], list[int]]:
    """Return the rows of each reason and detail, the most frequent first."""
    rows: dict[tuple[Reason, str], list[int]] = {}
    for refusal in sorted(refusals):
        rows.setdefault((refusal.reason, refusal.detail), []).append(refusal.row)
    return dict(sorted(rows.items(), key=lambda item: -len(item[1])))


def check_report(path: Path, manifest: Path) -> None:
    """Check that a report can be written where a person wants it, before hours are spent on the import.

    Raises `InvalidInput` if its folder is not there or may not be written, or the file holds something else than an
    earlier report.
    """
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InvalidInput(f"--report {path}: its folder is missing or may not be written; name another file")
    if path.exists() and (not path.is_file() or path.samefile(manifest) or not _is_report(path)):
        raise InvalidInput(f"--report {path} holds something else than a report; name another file")


def write_report(path: Path, refusals: Iterable[RefusedRow]) -> None:
    """Write refused rows as CSV to a file that only its owner can read; it appears complete or not at all."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(_HEADER)
    writer.writerows((refusal.row, refusal.reason.value, refusal.detail) for refusal in sorted(refusals))
    replace_file(path, text.getvalue().encode(), 0o600)


def _is_report(path: Path) -> bool:
    with path.open("rb") as file:
        return file.readline().strip() == ",".join(_HEADER).encode()
