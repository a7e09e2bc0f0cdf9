"""The CSV file that says which image is which record: a row for each of them, in whatever order of columns."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
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
    FRAME = "frame"
    SLICE = "slice"


REQUIRED = (Column.PATH, Column.LABEL, Column.RECORD, Column.SUBJECT)

ALIASES: Mapping[Column, tuple[str, ...]] = {
    Column.PATH: ("path", "file", "filename", "filepath", "image", "imagepath"),
    Column.LABEL: ("label", "class", "diagnosis", "target"),
    Column.RECORD: ("recordid", "record", "imageid", "scanid"),
    Column.SUBJECT: ("subjectid", "subject", "patientid", "patient"),
    Column.CONSENT: ("consent",),
    Column.SPLIT: ("split",),
    # Tables have columns of these names that count in other ways.
    Column.FRAME: (),
    Column.SLICE: (),
}
"""Headers that a column goes by without being named, apart from capitals, spaces, hyphens and underscores."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record as the manifest has it, without spaces around a field; `number` is its row, the header's being 1.

    `consent`, `split`, `frame` and `slice` are empty where the manifest does not say.
    """

    number: int
    path: str
    label: str
    record_id: str
    subject_id: str
    consent: str
    split: str
    frame: str = ""
    slice: str = ""


@dataclass(frozen=True)
class Manifest:
    """A manifest as it was read once; its rows are taken from its text each time, since they need far more memory.

    Attributes
    ----------
    broken : tuple of int
        Numbers of the rows with another number of fields than the header.
    count : int
        How many rows there are beside these.
    """

    path: Path
    content: bytes
    delimiter: str
    places: tuple[int, ...]
    broken: tuple[int, ...]
    count: int

    def __len__(self) -> int:
        return self.count + len(self.broken)

    @property
    def rows(self) -> Iterator[Row]:
        """The rows with as many fields as the header, from the first."""
        left_out = set(self.broken)
        for number, fields in _records(self.path, self.content, self.delimiter):
            if number >= _FIRST and number not in left_out and _is_filled(fields):
                yield Row(number, *(fields[place].strip() if place >= 0 else "" for place in self.places))


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

    `columns` are headers of columns that go by another name than those in `ALIASES`. Empty fields after the last one
    do not count where every row has as many. Raises `InvalidDataset` if the file cannot be read, is no UTF-8 or no CSV,
    lacks a column, has one twice or holds no record. The message shows the header at most, never a row.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidDataset(f"{path}: the manifest cannot be read ({error.strerror}); check its path") from None
    _check_text(path, content)
    first_line = content.splitlines()[0].decode("utf-8-sig") if content else ""
    delimiter = max(_DELIMITERS, key=first_line.count)
    records = _records(path, content, delimiter)
    _, first = next(records, (1, []))
    if not _is_filled(first):
        raise InvalidDataset(f"{path}: the manifest is empty; its first line must name the columns")
    header = [field.strip() for field in first]
    places = tuple(_places(path, header, columns))
    broken, count = _count(path, len(header), records)
    return Manifest(path, content, delimiter, places, broken, count)


def _check_text(path: Path, content: bytes) -> None:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:1000]:
        raise InvalidDataset(f"{path}: the manifest is UTF-16 text, or none at all; save it as CSV UTF-8")
    if content.startswith(b"PK\x03\x04"):
        raise InvalidDataset(f"{path}: the manifest is a spreadsheet; save it as CSV UTF-8")
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + content[: error.start].count(b"\n")
        raise InvalidDataset(f"{path}: the manifest is no UTF-8 text in line {line}; save it as CSV UTF-8") from None


def _records(path: Path, content: bytes, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row's number and fields, the header's first."""
    with io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        line = 0
        try:
            for number, fields in enumerate(reader, 1):
                yield number, fields
                line = reader.line_num
        except csv.Error as error:
            cause = "a null character" if "NUL" in str(error) else "a quote that is not closed, or closed too early"
            raise InvalidDataset(
                f"{path}: the manifest has {cause} in the row of line {line + 1}; correct it there"
            ) from None


def _count(path: Path, width: int, records: Iterator[tuple[int, list[str]]]) -> tuple[tuple[int, ...], int]:
    """Return the numbers of broken rows, and how many others there are."""
    broken, widths, count, always = [], set(), 0, True
    for number, fields in records:
        if not _is_filled(fields):
            continue
        widths.add(len(fields))
        always = always and len(fields) > width and not _is_filled(fields[width:])
        if len(fields) == width:
            count += 1
        else:
            broken.append(number)
    if not widths:
        raise InvalidDataset(f"{path}: the manifest holds no record; add a row for each image")
    if always and len(widths) == 1:
        return (), len(broken)
    if not count:
        found = ", ".join(map(str, sorted(widths)))
        raise InvalidDataset(
            f"{path}: the header has {width} fields and no row has as many (but {found}); give every row as many, and "
            "put quotes around a field that holds the separator"
        )
    return tuple(broken), count


def _is_filled(fields: list[str]) -> bool:
    return any(field.strip() for field in fields)


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
