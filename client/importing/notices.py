"""What a person should look at although nothing was refused for it: which rows, and what. Nothing here holds an id."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from fedmunkey.client.importing.pictures import Remark
from fedmunkey.client.records.dataset import Split


class Notice(StrEnum):
    """Why rows deserve a look."""

    FLAT = "flat"
    BURNED_IN = "burned-in"
    SAME_PICTURE = "same-picture"
    PICTURE_IN_TWO_SPLITS = "picture-in-two-splits"
    PICTURE_HELD = "picture-held"
    ALIKE_SUBJECTS = "alike-subjects"
    PLAIN_IDS = "plain-ids"


WORDS: Mapping[Notice, str] = {
    Notice.FLAT: str(Remark.FLAT),
    Notice.BURNED_IN: str(Remark.BURNED_IN),
    Notice.SAME_PICTURE: "another row has the same picture",
    Notice.PICTURE_IN_TWO_SPLITS: "another row has the same picture for another split, so that it tests what it trains",
    Notice.PICTURE_HELD: "the site holds the same picture under another id",
    Notice.ALIKE_SUBJECTS: "another row's subject differs in capitals, spaces or leading zeros only; is it the same?",
    Notice.PLAIN_IDS: "an id was read without the .0 of a spreadsheet, or with its accents composed (Unicode NFC)",
}

OF_REMARKS: Mapping[Remark, Notice] = {Remark.FLAT: Notice.FLAT, Remark.BURNED_IN: Notice.BURNED_IN}

_SPLITS = tuple(Split)


@dataclass(frozen=True, order=True, slots=True)
class NotedRow:
    """A row, by its place in its file, and what about it deserves a look."""

    row: int
    notice: Notice


def rows_of_notices(noted: Iterable[NotedRow]) -> dict[Notice, list[int]]:
    """Return the rows of each notice."""
    rows: dict[Notice, list[int]] = {}
    for each in sorted(noted):
        rows.setdefault(each.notice, []).append(each.row)
    return rows


class SeenPictures:
    """Pictures that were seen, to find those that come twice; of each it keeps a number."""

    def __init__(self) -> None:
        self._pictures, self._rows, self._splits = array("q"), array("q"), array("b")

    def add(self, row: int, picture: bytes, split: Split) -> None:
        """Note a row's picture."""
        self._pictures.append(hash(picture))
        self._rows.append(row)
        self._splits.append(_SPLITS.index(split))

    def repeated(self) -> list[NotedRow]:
        """Return the rows whose picture another row has."""
        if not self._rows:
            return []
        splits = np.array(self._splits)
        _, group, counts = np.unique(np.array(self._pictures), return_inverse=True, return_counts=True)
        lowest, highest = np.full(len(counts), len(_SPLITS)), np.zeros(len(counts), dtype=np.int64)
        np.minimum.at(lowest, group, splits)
        np.maximum.at(highest, group, splits)
        apart = lowest != highest
        return [
            NotedRow(self._rows[place], Notice.PICTURE_IN_TWO_SPLITS if apart[group[place]] else Notice.SAME_PICTURE)
            for place in np.flatnonzero(counts[group] > 1).tolist()
        ]
