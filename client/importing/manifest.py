"""The CSV file that says which image is which record: a row for each of them, in whatever order of columns."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from fedmunkey.common.errors import InvalidDataset, InvalidInput

_DELIMITERS = ",;\t"
_FIRST = 2
"""Number of the first record's row: rows are counted as spreadsheets do, from the header's 1."""


class Column(StrEnum):
    """What a manifest says of a record."""

    PATH = "path"
    LABEL = "label"
    RECORD = "record_id"
    SUBJECT = "subject_id"
    CONSENT = "consent"
    SPLIT = "split"


REQUIRED = (Column.PATH, Column.LABEL, Column.RECORD, Column.SUBJECT)

ALIASES: Mapping[Column, tuple[str, ...]] = {
    Column.PATH: ("path", "file", "filename", "filepath", "image", "imagepath"),
    Column.LABEL: ("label", "class", "diagnosis", "target"),
    Column.RECORD: ("recordid", "record", "imageid", "scanid"),
    Column.SUBJECT: ("subjectid", "subject", "patientid", "patient"),
    Column.CONSENT: ("consent",),
    Column.SPLIT: ("split",),
}
"""Headers that a column goes by without being named, apart from capitals, spaces, hyphens and underscores."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record as the manifest has it, without spaces around a field; `number` is its row, the header's being 1.

    `consent` and `split` are empty where the manifest does not say.
    """

    number: int
    path: str
    label: str
    record_id: str
    subject_id: str
    consent: str
    split: str


@dataclass(frozen=True)
class Manifest:
    """A manifest's rows with as many fields as the header, and the numbers of those that are `broken`."""

    path: Path
    rows: tuple[Row, ...]
    broken: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows) + len(self.broken)


def parse_columns(assignments: Iterable[str]) -> dict[Column, str]:
    """Read `COLUMN=HEADER` words; raises `InvalidInput` if one has no `=`, or there is no such column."""
    chosen = {}
    for assignment in assignments:
        name, separator, header = assignment.partition("=")
        if not separator or name not in set(Column) or not header.strip():
            known = ", ".join(Column)
            raise InvalidInput(f"--column {assignment!r} is not of the form COLUMN=HEADER with one of {known}")
        chosen[Column(name)] = header.strip()
    return chosen


def read_manifest(path: Path, columns: Mapping[Column, str]) -> Manifest:
    """Read a UTF-8 file with a header, separated by commas, semicolons or tabs.

    `columns` are headers of columns that go by another name than those in `ALIASES`. Raises `InvalidDataset` if the
    file cannot be read, is no UTF-8 or no CSV, lacks a column, has one twice or holds no record. The message shows the
    header at most, never a row.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = _delimiter(file.readline())
            file.seek(0)
            lines = list(csv.reader(file, delimiter=delimiter, strict=True))
    except OSError as error:
        raise InvalidDataset(f"{path}: the manifest cannot be read ({error.strerror}); check its path") from None
    except UnicodeDecodeError:
        raise InvalidDataset(f"{path}: the manifest is no UTF-8 text; save it as CSV UTF-8") from None
    except csv.Error:
        raise InvalidDataset(f"{path}: the manifest is no CSV, or a quote in it is not closed; save it again") from None
    if not lines or not any(field.strip() for field in lines[0]):
        raise InvalidDataset(f"{path}: the manifest is empty; its first line must name the columns")
    header = [field.strip() for field in lines[0]]
    places = _places(path, header, columns)
    rows, broken = [], []
    for number, fields in enumerate(lines[1:], _FIRST):
        if not any(field.strip() for field in fields):
            continue
        if len(fields) != len(header):
            broken.append(number)
            continue
        rows.append(Row(number, *(fields[place].strip() if place >= 0 else "" for place in places)))
    if not rows and not broken:
        raise InvalidDataset(f"{path}: the manifest holds no record; add a row for each image")
    return Manifest(path, tuple(rows), tuple(broken))


def _delimiter(header: str) -> str:
    return max(_DELIMITERS, key=header.count)


def _places(path: Path, header: list[str], columns: Mapping[Column, str]) -> list[int]:
    """Return where each column stands, in their order; -1 for one that is missing and may be."""
    places = []
    for column in Column:
        wanted = columns.get(column)
        names = ALIASES[column] if wanted is None else (_plain(wanted),)
        found = [place for place, name in enumerate(header) if _plain(name) in names]
        if len(found) > 1:
            both = " and ".join(repr(header[place]) for place in found[:2])
            raise InvalidDataset(
                f"{path}: {both} may both be the column {column}; choose with --column {column}=HEADER"
            )
        if not found and (wanted is not None or column in REQUIRED):
            missing = repr(wanted) if wanted is not None else str(column)
            # Without a header, what would be shown as the columns' names were those of the first patient.
            raise InvalidDataset(
                f"{path}: none of the manifest's {len(header)} columns is called {missing}; "
                f"rename one, or name it with --column {column}=HEADER"
            )
        places.append(found[0] if found else -1)
    return places


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()
